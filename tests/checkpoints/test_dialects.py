"""Each upstream's names lead to torchvision's logits."""

from collections.abc import Callable

import pytest
import swin_dialects as dialects
import torch
import torch.nn.functional as F
from oracles import SMALL_SWIN, small_swin, small_torchvision_swin, torchvision_models
from torch import Tensor

from vtfast.checkpoints import load_checkpoint
from vtfast.models import FeatureExtractor

StateDict = dict[str, Tensor]

CLIP = torch.randn(2, 3, 6, 40, 52, generator=torch.Generator().manual_seed(0))
IMAGE_DIALECTS = [dialects.official_image, dialects.timm_image, dialects.torchvision_image]


def bare(weights: StateDict) -> StateDict:
    return weights


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state"])
@pytest.mark.parametrize(
    ("dialect", "upstream"),
    [
        (bare, "torchvision swin3d"),
        (dialects.official, "official Video Swin or mmaction2"),
        (dialects.mmaction2, "official Video Swin or mmaction2"),
    ],
)
def test_video_weights(dialect: Callable[[StateDict], StateDict], upstream: str, wrapper: str | None) -> None:
    oracle, model = small_torchvision_swin(), small_swin()
    weights = dialect(oracle.state_dict())
    source = {wrapper: weights, "epoch": 30} if wrapper else weights
    report = load_checkpoint(model, source)
    assert report.upstream == upstream
    assert set(report.loaded) == set(model.state_dict())
    torch.testing.assert_close(model(CLIP), oracle(CLIP), rtol=1e-5, atol=1e-5)


def test_own_weights() -> None:
    model, other = small_swin(), small_swin(num_classes=7)
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    assert load_checkpoint(other, model.state_dict()).upstream == "vtfast"
    assert torch.equal(model(CLIP), other(CLIP))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_wrapped_models(prefix: str) -> None:
    oracle, model = small_torchvision_swin(), small_swin()
    load_checkpoint(model, {prefix + name: value for name, value in oracle.state_dict().items()})
    torch.testing.assert_close(model(CLIP), oracle(CLIP), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dialect", IMAGE_DIALECTS)
def test_image_weights_give_the_images_logits_on_a_still_clip(dialect: Callable[[StateDict], StateDict]) -> None:
    """Attention to n copies of a key is attention to one, so the published inflation keeps the logits.

    No window shrinks at this size; there the 2D model pads where the 3D one clamps.
    """
    image_model, weights = small_image_swin()
    model = small_swin(num_classes=7)
    assert load_checkpoint(model, dialect(weights)).upstream == "2D image Swin"
    image = torch.randn(1, 3, 100, 120)
    still = image[:, :, None].expand(-1, -1, 8, -1, -1)
    torch.testing.assert_close(model(still), image_model(image), rtol=1e-4, atol=1e-4)


def small_image_swin() -> tuple[torch.nn.Module, StateDict]:
    """A 2D Swin of torchvision, and its weights under torchvision's 3D names."""
    image_swin = torchvision_models().swin_transformer.SwinTransformer
    model = image_swin([4, 4], 16, [2, 2, 1, 1], list(SMALL_SWIN["num_heads"]), [3, 3], num_classes=7).eval()
    weights = dialects.image_weights(small_torchvision_swin().state_dict(), SMALL_SWIN["window"])
    weights = {name: value for name, value in weights.items() if not name.endswith("relative_position_index")}
    missing = model.load_state_dict(dialects.torchvision_image(weights), strict=False)
    assert all(name.endswith("relative_position_index") for name in missing.missing_keys)
    assert not missing.unexpected_keys
    return model, weights


def test_image_bias_tables_are_resized_to_another_window() -> None:
    _, weights = small_image_swin()
    model = small_swin(window=(2, 5, 4))
    load_checkpoint(model, dialects.official_image(weights))
    name = "blocks.0.attn.relative_position_bias_table"
    image = weights[f"features.0.{name.removeprefix('blocks.')}"].t().reshape(1, 1, 5, 5)
    resized = F.interpolate(image, size=(9, 7), mode="bicubic", align_corners=False)
    table = model.stages[0].get_parameter(name).reshape(3, 9, 7)
    torch.testing.assert_close(table, resized[0].expand(3, -1, -1))


def test_image_head_of_other_classes_leaves_the_models_own() -> None:
    _, weights = small_image_swin()
    model = small_swin(num_classes=5)
    head = model.head.weight.clone()
    load_checkpoint(model, dialects.timm_image(weights))
    assert torch.equal(model.head.weight, head)
    assert not torch.equal(model.norm.weight, small_swin().norm.weight)


def test_model_without_head_takes_the_body() -> None:
    oracle, model = small_torchvision_swin(), small_swin(num_classes=0)
    load_checkpoint(model, oracle.state_dict())
    oracle.head = torch.nn.Identity()
    torch.testing.assert_close(model(CLIP), oracle(CLIP), rtol=1e-5, atol=1e-5)


def test_backbone_without_head_needs_a_model_without_head() -> None:
    weights = dialects.official(small_torchvision_swin().state_dict())
    backbone = {name.removeprefix("backbone."): v for name, v in weights.items() if name.startswith("backbone.")}
    load_checkpoint(small_swin(num_classes=0), backbone)
    with pytest.raises(ValueError, match=r"missing \(2\): head.weight, head.bias"):
        load_checkpoint(small_swin(), backbone)


def test_feature_extractor_takes_what_it_has() -> None:
    oracle, model = small_torchvision_swin(), small_swin()
    extractor = FeatureExtractor(small_swin(), out_indices=(1,))
    for target in (model, extractor):
        load_checkpoint(target, oracle.state_dict())
    torch.testing.assert_close(extractor(CLIP), model.forward_intermediates(CLIP, [1]))
    saved = FeatureExtractor(small_swin(), out_indices=(1,))
    load_checkpoint(saved, extractor.state_dict())
    torch.testing.assert_close(saved(CLIP), extractor(CLIP))
