"""Each upstream's names lead to the same MViT; positions of another size; what does not fit."""

from collections.abc import Callable
from pathlib import Path

import mvit_dialects as dialects
import pytest
import torch
import torch.nn.functional as F
from oracles import (
    pytorchvideo_mvit,
    small_mvit,
    small_mvit_v2,
    small_swin,
    small_timesformer,
    torchvision_mvit,
    torchvision_video,
)
from torch import Tensor

from vtfast import create_model
from vtfast.checkpoints import load_checkpoint
from vtfast.models import FeatureExtractor, MViT

StateDict = dict[str, Tensor]
Dialect = Callable[[StateDict], StateDict]

CLIP = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
VIDEO_DIALECTS: list[tuple[Dialect, str]] = [
    (dict, "vtfast"),
    (dialects.slowfast, "SlowFast MViT"),
    (dialects.slowfast_separate, "SlowFast MViT"),
    (dialects.torchvision, "torchvision MViT"),
    (dialects.mmaction2, "mmaction2 MViT"),
]
# PyTorchVideo has positions in all its models.
FIRST_VERSION_DIALECTS = [
    *VIDEO_DIALECTS,
    (dialects.pytorchvideo, "PyTorchVideo MViT"),
    (dialects.pytorchvideo_merged, "PyTorchVideo MViT"),
    (dialects.pytorchvideo_later, "PyTorchVideo MViT"),
    (dialects.pytorchvideo_deduplicated, "PyTorchVideo MViT"),
    (dialects.pytorchvideo_wrapped, "PyTorchVideo MViT"),
]
EVERY_DIALECT = pytest.mark.parametrize(("dialect", "upstream"), FIRST_VERSION_DIALECTS)


def other(model: MViT) -> StateDict:
    """Weights of the names and shapes of the model's, with other values."""
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(value.shape, generator=generator) for name, value in model.state_dict().items()}


def assert_loaded(model: MViT, source: object, weights: StateDict, upstream: str) -> None:
    """Every entry of the model has become that of `weights`."""
    report = load_checkpoint(model, source)
    own = model.state_dict()
    assert report.upstream == upstream
    assert set(report.loaded) == set(own) == set(weights)
    assert all(torch.equal(own[name], value) for name, value in weights.items())


@EVERY_DIALECT
def test_weights_of_the_first_version(dialect: Dialect, upstream: str) -> None:
    model = small_mvit()
    weights = other(model)
    assert_loaded(model, dialect(weights), weights, upstream)


@pytest.mark.parametrize(("dialect", "upstream"), VIDEO_DIALECTS)
def test_weights_of_the_second_version(dialect: Dialect, upstream: str) -> None:
    model = small_mvit_v2()
    weights = other(model)
    assert_loaded(model, dialect(weights), weights, upstream)


@pytest.mark.parametrize("wrapper", ["model_state", "state_dict", "model"])
def test_files(tmp_path: Path, wrapper: str) -> None:
    model = small_mvit_v2()
    weights = other(model)
    path = tmp_path / "k400.pyth"
    torch.save({"epoch": 200, "cfg": "MODEL: MViT", wrapper: dialects.slowfast(weights)}, path)
    assert_loaded(model, path, weights, "SlowFast MViT")


@pytest.mark.parametrize(
    ("dialect", "upstream"),
    [
        (dict, "vtfast"),
        (dialects.slowfast_separate, "SlowFast MViT"),
        (dialects.pytorchvideo, "PyTorchVideo MViT"),
    ],
)
def test_models_without_cls(dialect: Dialect, upstream: str) -> None:
    model = small_mvit(cls_token=False)
    weights = other(model)
    assert_loaded(model, dialect(weights), weights, upstream)


def test_unused_cls_of_mmaction2() -> None:
    model = small_mvit_v2(cls_token=False)
    weights = other(model)
    assert_loaded(model, dialects.mmaction2(weights | {"cls_token": torch.ones(1, 1, 16)}), weights, "mmaction2 MViT")


@pytest.mark.parametrize(
    ("dialect", "upstream"),
    [(dict, "vtfast"), (dialects.slowfast, "SlowFast MViT"), (dialects.pytorchvideo, "PyTorchVideo MViT")],
)
@pytest.mark.parametrize("mode", ["conv", "avg", "max"])
def test_pooling_before_the_projections_keeps_them_apart(mode: str, dialect: Dialect, upstream: str) -> None:
    model = small_mvit(pool_first=True, pool_mode=mode)
    weights = other(model)
    assert "blocks.0.attn.q.weight" in weights
    assert_loaded(model, dialect(weights), weights, upstream)


@EVERY_DIALECT
def test_poolings_without_weights(dialect: Dialect, upstream: str) -> None:
    model = small_mvit(pool_mode="max")
    weights = other(model)
    assert_loaded(model, dialect(weights), weights, upstream)


@pytest.mark.parametrize("small_model", [small_mvit, small_mvit_v2])
def test_torchvision_gives_the_same_logits(small_model: Callable[..., MViT]) -> None:
    model = small_model()
    oracle = torchvision_mvit(model)
    load_checkpoint(model, {f"module.{name}": value for name, value in oracle.state_dict().items()})
    torch.testing.assert_close(model(CLIP), oracle(CLIP), rtol=1e-5, atol=1e-5)


def test_pytorchvideo_gives_the_same_logits() -> None:
    model = small_mvit()
    oracle = pytorchvideo_mvit(model)
    assert load_checkpoint(model, oracle.state_dict()).upstream == "PyTorchVideo MViT"
    torch.testing.assert_close(model(CLIP), oracle(CLIP), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["mvit_v1_b", "mvit_v2_s"])
def test_torchvisions_models_by_name(name: str) -> None:
    with torch.device("meta"):
        oracle = getattr(torchvision_video(), name)()
    weights = {name: torch.full(value.shape, 0.5) for name, value in oracle.state_dict().items()}
    model = create_model(name, checkpoint=weights)
    assert all((value == 0.5).all() for value in model.state_dict().values())


def test_own_extractor_takes_what_it_has() -> None:
    model, extractor = small_mvit(), FeatureExtractor(small_mvit(), out_indices=(1,))
    weights = dialects.slowfast_separate(other(model))
    for target in (model, extractor):
        load_checkpoint(target, weights)
    expected = model.forward_intermediates(CLIP, [1])
    torch.testing.assert_close(extractor(CLIP), expected)
    saved = FeatureExtractor(small_mvit(), out_indices=(1,))
    assert load_checkpoint(saved, extractor.state_dict()).upstream == "vtfast"
    torch.testing.assert_close(saved(CLIP), expected)


@EVERY_DIALECT
def test_model_without_head_takes_the_body(dialect: Dialect, upstream: str) -> None:
    weights = other(small_mvit())
    model = small_mvit(num_classes=0)
    assert load_checkpoint(model, dialect(weights)).upstream == upstream
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


@EVERY_DIALECT
def test_body_alone(dialect: Dialect, upstream: str) -> None:
    model = small_mvit(num_classes=0)
    weights = other(model)
    assert_loaded(model, dialect(weights), weights, upstream)


@EVERY_DIALECT
def test_positions_of_another_size(dialect: Dialect, upstream: str) -> None:
    weights = other(small_mvit())
    model = small_mvit(image_size=48, num_frames=10)
    assert load_checkpoint(model, dialect(weights)).upstream == upstream
    image = weights["pos_embed_spatial"].reshape(1, 8, 8, 16).permute(0, 3, 1, 2)
    places = F.interpolate(image, size=(12, 12), mode="bicubic").flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.pos_embed_spatial.data, places)
    torch.testing.assert_close(model.pos_embed_temporal.data, linear(weights["pos_embed_temporal"][0], 5)[None])
    assert torch.equal(model.pos_embed_class, weights["pos_embed_class"])


@pytest.mark.parametrize(("dialect", "upstream"), VIDEO_DIALECTS)
def test_relative_positions_of_another_size(dialect: Dialect, upstream: str) -> None:
    weights = other(small_mvit_v2())
    model = small_mvit_v2(image_size=48, num_frames=10)
    assert load_checkpoint(model, dialect(weights)).upstream == upstream
    for index, side in enumerate((12, 6, 6, 6)):
        for axis, size in (("t", 5), ("h", side), ("w", side)):
            name = f"blocks.{index}.attn.rel_pos_{axis}"
            table = model.get_parameter(name)
            assert table.shape == (2 * size - 1, 16)
            torch.testing.assert_close(table.data, linear(weights[name], len(table)))


def linear(values: Tensor, count: int) -> Tensor:
    """`count` values out of those along the first of two axes."""
    return F.interpolate(values.t()[None], size=count, mode="linear")[0].t()


def test_positions_of_a_square_on_a_rectangle() -> None:
    weights = other(small_mvit())
    model = small_mvit(image_size=(48, 24))
    load_checkpoint(model, dialects.slowfast(weights))
    image = weights["pos_embed_spatial"].reshape(1, 8, 8, 16).permute(0, 3, 1, 2)
    resized = F.interpolate(image, size=(12, 6), mode="bicubic").flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.pos_embed_spatial.data, resized)


def test_positions_of_a_rectangle_stay_its_own() -> None:
    weights = other(small_mvit(image_size=(48, 24)))
    with pytest.raises(ValueError, match=r"pos_embed_spatial \(model \(1, 64, 16\), checkpoint \(1, 72, 16\)\)"):
        load_checkpoint(small_mvit(), weights)


def test_half_precision_positions_are_resized() -> None:
    weights = {name: value.bfloat16() for name, value in other(small_mvit()).items()}
    model = small_mvit(image_size=48, num_frames=10)
    load_checkpoint(model, dialects.slowfast(weights))
    assert model.pos_embed_temporal.dtype == torch.float32


def test_everything_wrong_is_listed() -> None:
    weights = dialects.slowfast_separate(other(small_mvit_v2()))
    del weights["blocks.1.attn.v.weight"]
    weights["blocks.0.gamma_1"] = torch.ones(16)
    model = small_mvit_v2(mlp_ratio=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"\(names of SlowFast MViT\) does not fit MViT, nothing was loaded") as caught:
        load_checkpoint(model, weights)
    message = str(caught.value)
    assert "missing (1): blocks.1.attn.qkv.weight" in message
    assert "unexpected (3): blocks.1.attn.q.weight, blocks.1.attn.k.weight, blocks.0.gamma_1" in message
    assert "blocks.0.mlp.fc1.weight (model (32, 16), checkpoint (64, 16))" in message
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("dialect", [dict, dialects.slowfast])
def test_another_version_is_refused(dialect: Dialect) -> None:
    with pytest.raises(ValueError, match=r"unexpected \(\d+\): pos_embed_spatial, pos_embed_temporal"):
        load_checkpoint(small_mvit_v2(), dialect(other(small_mvit())))
    with pytest.raises(ValueError, match=r"missing \(\d+\): pos_embed_spatial, pos_embed_temporal"):
        load_checkpoint(small_mvit(), dialect(other(small_mvit_v2())))


def test_cls_that_only_one_of_both_has() -> None:
    with pytest.raises(ValueError, match=r"unexpected \(2\): cls_token, pos_embed_class"):
        load_checkpoint(small_mvit(cls_token=False), dialects.slowfast(other(small_mvit())))
    with pytest.raises(ValueError, match=r"missing \(2\): cls_token, pos_embed_class"):
        load_checkpoint(small_mvit(), dialects.slowfast(other(small_mvit(cls_token=False))))


def test_pooling_first_and_pooling_after_are_told_apart_by_merged_projections() -> None:
    with pytest.raises(ValueError, match=r"missing \(24\): blocks.0.attn.q.weight"):
        load_checkpoint(small_mvit(pool_first=True), dialects.slowfast(other(small_mvit())))


def test_intermediate_norms_of_mmaction2_are_refused() -> None:
    weights = dialects.mmaction2(other(small_mvit_v2()))
    weights |= {"backbone.norm1.weight": torch.ones(32), "backbone.norm1.bias": torch.zeros(32)}
    with pytest.raises(ValueError, match=r"unexpected \(2\): norm1.weight, norm1.bias"):
        load_checkpoint(small_mvit_v2(), weights)


def test_head_of_other_classes_names_the_remedies() -> None:
    weights = dialects.mmaction2(other(small_mvit_v2()))
    with pytest.raises(ValueError, match="head has 7 classes"):
        load_checkpoint(small_mvit_v2(num_classes=5), weights)


@EVERY_DIALECT
def test_other_architectures_refuse_an_mvit(dialect: Dialect, upstream: str) -> None:
    for model in (small_swin(), small_timesformer()):
        with pytest.raises(ValueError, match=rf"\(names of {upstream}\) does not fit {type(model).__name__}"):
            load_checkpoint(model, dialect(other(small_mvit())))


def test_an_mvit_refuses_other_architectures() -> None:
    for model in (small_swin(), small_timesformer()):
        with pytest.raises(ValueError, match=r"\(names of vtfast\) does not fit MViT"):
            load_checkpoint(small_mvit(), model.state_dict())
