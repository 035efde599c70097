"""Checkpoints that do not fit: one error that lists everything, and a model that is as it was."""

import pytest
import torch
from oracles import small_swin, small_torchvision_swin
from torch import Tensor, nn

from vtfast.checkpoints import load_checkpoint
from vtfast.models import create_model


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_refused(model: nn.Module, source: object) -> str:
    """The message of the error, after a look that nothing was loaded."""
    before = snapshot(model)
    with pytest.raises(ValueError, match="does not fit VideoSwin, nothing was loaded") as caught:
        load_checkpoint(model, source)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    return str(caught.value)


def test_everything_wrong_is_listed_at_once() -> None:
    weights = small_torchvision_swin().state_dict()
    del weights["norm.bias"]
    weights["patch_embed.proj.weight"] = torch.zeros(16, 3, 2, 2, 2)
    weights["features.9.extra"] = torch.zeros(1)
    message = assert_refused(small_swin(), weights)
    assert "(names of torchvision swin3d)" in message
    assert "missing (1): norm.bias" in message
    assert "unexpected (1): features.9.extra" in message
    shapes = "patch_embed.proj.weight (model (16, 3, 2, 4, 4), checkpoint (16, 3, 2, 2, 2))"
    assert f"of another shape (1): {shapes}" in message


def test_another_architecture_is_named_as_unknown_and_listed_shortly() -> None:
    strangers = {f"conv{i}.weight": torch.zeros(1) for i in range(50)}
    message = assert_refused(small_swin(), strangers)
    assert "names of none of vtfast, torchvision swin3d" in message
    assert "unexpected (50): conv0.weight, " in message
    assert ", and 42 more" in message
    assert len(message) < 2000


def test_another_size_lists_shapes() -> None:
    message = assert_refused(small_swin(embed_dim=32), small_torchvision_swin().state_dict())
    assert "norm.weight (model (256,), checkpoint (128,))" in message or "more" in message
    assert "reset_classifier" not in message


def test_head_of_other_classes_names_the_remedies() -> None:
    weights = small_torchvision_swin().state_dict()
    message = assert_refused(small_swin(num_classes=5), weights)
    assert "head.weight (model (5, 128), checkpoint (7, 128))" in message
    assert "the checkpoint's head has 7 classes" in message.lower()
    assert "reset_classifier" in message
    assert "strict=False" in message


def test_not_strict_keeps_the_own_head_and_reports() -> None:
    oracle, model = small_torchvision_swin(), small_swin(num_classes=5)
    head = model.head.weight.clone()
    report = load_checkpoint(model, oracle.state_dict(), strict=False)
    assert [name for name, *_ in report.mismatched] == ["head.weight", "head.bias"]
    assert report.missing == report.unexpected == ()
    assert torch.equal(model.head.weight, head)
    assert torch.equal(model.norm.weight, oracle.norm.weight)


def test_not_strict_still_refuses_when_nothing_fits() -> None:
    with pytest.raises(ValueError, match="nothing was loaded"):
        load_checkpoint(small_swin(), {"weight": torch.zeros(1)}, strict=False)


def test_replaced_head_needs_its_own_weights() -> None:
    model = small_swin()
    model.head = nn.Sequential(nn.Linear(model.num_features, 3))
    message = assert_refused(model, small_torchvision_swin().state_dict())
    assert "missing (2): head.0.weight, head.0.bias" in message
    assert "unexpected (2): head.weight, head.bias" in message


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_values_take_the_dtype_of_the_model(dtype: torch.dtype) -> None:
    weights = small_torchvision_swin().to(dtype).state_dict()
    model = small_swin()
    load_checkpoint(model, weights)
    assert model.norm.weight.dtype == torch.float32
    assert torch.equal(model.norm.weight, weights["norm.weight"].float())


def test_the_model_owns_its_weights() -> None:
    weights, model = small_torchvision_swin().state_dict(), small_swin()
    load_checkpoint(model, weights)
    before = model.norm.weight.clone()
    weights["norm.weight"].zero_()
    assert torch.equal(model.norm.weight, before)


def test_create_model_loads_and_checks_classes() -> None:
    small = {"embed_dim": 16, "depths": (2, 2, 1, 1), "num_heads": (1, 2, 4, 4), "window": (4, 3, 3)}
    oracle = small_torchvision_swin()
    model = create_model("swin3d_t", num_classes=7, checkpoint=oracle.state_dict(), **small)
    assert torch.equal(model.head.weight, oracle.head.weight)
    with pytest.raises(ValueError, match="has 7 classes"):
        create_model("swin3d_t", checkpoint=oracle.state_dict(), **small)
    extractor = create_model("swin3d_t", checkpoint=oracle.state_dict(), features_only=True, out_indices=(0,), **small)
    assert torch.equal(extractor.model.patch_embed.norm.weight, oracle.patch_embed.norm.weight)
