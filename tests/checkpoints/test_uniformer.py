"""Each upstream's names lead to the same UniFormer; image weights inflated; what does not fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import uniformer_dialects as dialects
from oracles import randomise
from torch import Tensor
from uniformer_oracles import SMALL, mmaction2_uniformer, small_uniformer, small_uniformer_light

from vtfast import create_model
from vtfast.checkpoints import load_checkpoint
from vtfast.models import FeatureExtractor
from vtfast.models.uniformer_stages import UniFormerStages

StateDict = dict[str, Tensor]
Dialect = Callable[[StateDict], StateDict]

CLIP = torch.randn(2, 3, 4, 32, 48, generator=torch.Generator().manual_seed(0))
VIDEO_DIALECTS = pytest.mark.parametrize(
    ("dialect", "upstream"),
    [
        (dict, "vtfast"),
        (dialects.uniformer, "official UniFormer"),
        (dialects.uniformer_backbone, "official UniFormer"),
        (dialects.uniformer_mmaction2, "mmaction2 UniFormer"),
    ],
)


def small_split(**config: Any) -> UniFormerStages:
    return small_uniformer(split=True, std=True, **config)


def small_light_with_scale(**config: Any) -> UniFormerStages:
    return small_uniformer_light(layer_scale=0.1, **config)


MODELS = pytest.mark.parametrize(
    "small_model", [small_uniformer, small_split, small_uniformer_light, small_light_with_scale]
)


def other(model: UniFormerStages) -> StateDict:
    """Weights of the names and shapes of the model's, with other values."""
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand(value.shape, generator=generator) for name, value in model.state_dict().items()}


def assert_loaded(model: UniFormerStages, source: Any, weights: StateDict, upstream: str) -> None:
    """Every entry of the model has become that of `weights`."""
    report = load_checkpoint(model, source)
    own = model.state_dict()
    assert report.upstream == upstream
    assert set(report.loaded) == set(own)
    # The number of batches that a norm has seen is an integer.
    assert all(torch.equal(value, weights[name].to(value.dtype)) for name, value in own.items())


@MODELS
@VIDEO_DIALECTS
def test_video_weights(
    dialect: Dialect, upstream: str, small_model: Callable[..., UniFormerStages], tmp_path: Path
) -> None:
    model = small_model()
    weights = other(model)
    torch.save({"model_state": dialect(weights), "epoch": 110}, tmp_path / "k400.pyth")
    assert_loaded(model, tmp_path / "k400.pyth", weights, upstream)
    assert_loaded(small_model(num_classes=0), {"model": dialect(weights)}, weights, upstream)


def test_mmaction2_gives_the_same_logits() -> None:
    model = small_uniformer()
    oracle = randomise(mmaction2_uniformer(model), seed=3)
    assert load_checkpoint(model, oracle.state_dict()).upstream == "mmaction2 UniFormer"
    torch.testing.assert_close(model(CLIP), oracle(CLIP), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("wrapper", [None, "model"])
@MODELS
def test_image_weights_are_spread_over_time(small_model: Callable[..., UniFormerStages], wrapper: str | None) -> None:
    model = small_model()
    weights = other(model)
    image = dialects.uniformer_image(weights)
    report = load_checkpoint(model, {wrapper: image} if wrapper else image)
    assert report.upstream == "2D image UniFormer"
    assert set(report.loaded) == set(model.state_dict())
    for name, value in model.state_dict().items():
        is_kernel = value.dim() == 5
        expected = weights[name].mean(2, keepdim=True).expand_as(value) if is_kernel else weights[name].to(value.dtype)
        torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("small_model", [small_split, small_light_with_scale])
def test_what_images_lack_stays_the_models_own(small_model: Callable[..., UniFormerStages]) -> None:
    model = small_model(num_classes=5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lacking = ("head", "t_attn.qkv.weight", "t_norm.bias", "gamma_1", "gamma_2")
    image = {name: v for name, v in dialects.uniformer_image(other(model)).items() if not name.endswith(lacking[1:])}
    if small_model is small_split:
        image = {name: v for name, v in image.items() if ".t_" not in name}
    # ImageNet has other classes.
    image |= {name: torch.zeros(9, *value.shape[1:]) for name, value in image.items() if name.startswith("head")}
    kept = load_checkpoint(model, image).kept
    assert all(name.startswith("head") or ".t_" in name or "gamma" in name for name in kept)
    assert {"head.weight", "head.bias"} < set(kept)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in kept)


def test_own_extractor_takes_what_it_has() -> None:
    for small_model in (small_uniformer, small_uniformer_light):
        extractor, saved = (FeatureExtractor(small_model(), out_indices=(0,)) for _ in range(2))
        load_checkpoint(extractor, dialects.uniformer(other(small_model())))
        assert load_checkpoint(saved, extractor.state_dict()).upstream == "vtfast"
        torch.testing.assert_close(saved(CLIP), extractor(CLIP))


def test_by_name_and_with_fewer_classes() -> None:
    weights = other(small_uniformer_light())
    options = {name: value for name, value in SMALL.items() if name != "num_classes"}
    model = create_model(
        "uniformer_xxs", num_classes=2, checkpoint=dialects.uniformer(weights), head_rows=(6, 0), **options
    )
    for head in (model.head, model.head_cls):
        name = "head_cls" if head is model.head_cls else "head"
        assert torch.equal(head.weight, weights[f"{name}.weight"][[6, 0]])
        assert torch.equal(head.bias, weights[f"{name}.bias"][[6, 0]])
    with pytest.raises(ValueError, match="head has 7 classes"):
        create_model("uniformer_xxs", checkpoint=dialects.uniformer(weights), **options)


@pytest.mark.parametrize(
    ("weights_of", "message"),
    [
        (small_split, r"unexpected \(18\): blocks3.0.t_norm.weight, .*(?s:.*)of another shape"),
        (lambda: small_uniformer(layer_scale=1.0), r"unexpected \(10\): blocks1.0.gamma_1, "),
        (lambda: small_uniformer(depths=(1, 1, 1, 1)), r"missing \(14\): blocks3.1.pos_embed.weight, "),
        (small_uniformer_light, r"missing \(4\): patch_embed1.proj.weight, "),
    ],
)
def test_what_does_not_fit_is_listed(weights_of: Callable[[], UniFormerStages], message: str) -> None:
    with pytest.raises(ValueError, match=r"\(names of official UniFormer\) does not fit UniFormer, ") as caught:
        load_checkpoint(small_uniformer(), dialects.uniformer(other(weights_of())))
    assert caught.match(message)


def test_kernels_of_another_size_are_refused() -> None:
    weights = dialects.uniformer(other(small_uniformer()))
    weights["blocks1.0.conv1.weight"] = torch.zeros(8, 8, 1, 3, 3)
    with pytest.raises(ValueError, match=r"blocks1.0.conv1.weight \(model \(8, 8\), checkpoint \(8, 8, 1, 3, 3\)\)"):
        load_checkpoint(small_uniformer(), weights)
