"""Each upstream's names lead to the same UniFormerV2; CLIP inflated; positions of another size; what does not fit."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import uniformer_dialects as dialects
from oracles import randomise
from torch import Tensor
from uniformer_v2_oracles import SIZE, SMALL, mmaction2_uniformer_v2, small_uniformer_v2

from vtfast import create_model
from vtfast.bench.measure import NotSupportedError
from vtfast.bench.upstreams import upstream
from vtfast.checkpoints import load_checkpoint
from vtfast.models import FeatureExtractor, UniFormerV2

StateDict = dict[str, Tensor]
Dialect = Callable[[StateDict], StateDict]

CLIP = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
DESIGNS = pytest.mark.parametrize("design", ["scene", "temporal"])
VIDEO_DIALECTS = pytest.mark.parametrize(
    ("dialect", "whose"),
    [
        (dict, "vtfast"),
        (dialects.uniformer_v2, "official UniFormerV2"),
        (dialects.uniformer_v2_bare, "official UniFormerV2"),
        (dialects.uniformer_v2_mmaction2, "mmaction2 UniFormerV2"),
    ],
)
CLIP_DIALECTS = pytest.mark.parametrize("dialect", [dialects.clip_tower, dialects.clip, dialects.clip_huggingface])


def other(model: UniFormerV2) -> StateDict:
    """Weights of the names and shapes of the model's, with other values."""
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(value.shape, generator=generator) for name, value in model.state_dict().items()}


def assert_loaded(model: UniFormerV2, source: Any, weights: StateDict, whose: str) -> None:
    """Every entry of the model has become that of `weights`."""
    report = load_checkpoint(model, source)
    own = model.state_dict()
    assert report.upstream == whose
    assert set(report.loaded) == set(own)
    # The number of batches that a norm has seen is an integer.
    assert all(torch.equal(value, weights[name].to(value.dtype)) for name, value in own.items())


@DESIGNS
@VIDEO_DIALECTS
def test_video_weights(dialect: Dialect, whose: str, design: str, tmp_path: Path) -> None:
    model = small_uniformer_v2(design=design)
    weights = other(model)
    torch.save({"model_state": dialect(weights), "epoch": 5}, tmp_path / "k710.pyth")
    assert_loaded(model, tmp_path / "k710.pyth", weights, whose)
    without_head = small_uniformer_v2(design=design, num_classes=0)
    assert_loaded(without_head, {"model": dialect(weights)}, weights, whose)


def test_frozen_weights_have_no_balance() -> None:
    model = small_uniformer_v2(frozen=True)
    weights = other(model)
    assert_loaded(model, dialects.uniformer_v2(weights), weights, "official UniFormerV2")
    with pytest.raises(ValueError, match=r"missing \(1\): balance"):
        load_checkpoint(small_uniformer_v2(), dialects.uniformer_v2(weights))


@DESIGNS
def test_mmaction2_gives_the_same_features(design: str) -> None:
    model = small_uniformer_v2(design=design, num_classes=0)
    oracle = randomise(mmaction2_uniformer_v2(model), seed=3)
    assert load_checkpoint(model, oracle.state_dict()).upstream == "mmaction2 UniFormerV2"
    torch.testing.assert_close(model(CLIP), oracle(CLIP), rtol=1e-4, atol=1e-4)


@DESIGNS
@CLIP_DIALECTS
def test_clip_is_inflated_by_the_middle(dialect: Dialect, design: str) -> None:
    model = small_uniformer_v2(design=design)
    weights, before = other(model), {name: value.clone() for name, value in model.state_dict().items()}
    # As OpenAI publishes it.
    report = load_checkpoint(model, {name: value.half() for name, value in dialect(weights).items()})
    assert report.upstream == "CLIP's image tower"
    assert {"head.weight", "norm.weight", "temporal_cls_token", "balance", "global_blocks.1.dpe.weight"} <= set(
        report.kept
    )
    assert ("blocks.0.lmhra1.norm.running_mean" in report.kept) == (design == "temporal")
    assert {"ln_pre.bias", "blocks.2.attn.qkv.bias", "positional_embedding"} <= set(report.loaded)
    kernel = weights["patch_embed.proj.weight"]
    middle = torch.arange(kernel.shape[2]).eq(kernel.shape[2] // 2)[:, None, None]
    weights["patch_embed.proj.weight"] = kernel * middle
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name] if name in report.kept else weights[name].half().float())


@DESIGNS
def test_hugging_face_gives_the_same_tokens_of_an_image(design: str) -> None:
    """A frame that has none before it: the middle of the kernel sees the first one."""
    model = small_uniformer_v2(design=design)
    for name, parameter in model.named_parameters():
        if ".lmhra" in name:
            torch.nn.init.zeros_(parameter)
    tower = huggingface_tower()
    load_checkpoint(model, tower.state_dict())
    clip = CLIP[:, :, :2]
    tokens = tower(clip[:, :, 0]).last_hidden_state[:, 1:]
    (tokens_here,) = model.forward_intermediates(clip, [2])
    torch.testing.assert_close(tokens_here[:, :, 0].flatten(2).transpose(1, 2), tokens, rtol=1e-4, atol=1e-4)


def huggingface_tower() -> torch.nn.Module:
    """CLIP's image tower in transformers, of the architecture of `small_uniformer_v2`; skips without transformers."""
    with contextlib.suppress(NotSupportedError):
        upstream.torchvision_video()  # which transformers imports if it is there
    transformers = pytest.importorskip("transformers")
    dim = SMALL["embed_dim"]
    config = transformers.CLIPVisionConfig(
        hidden_size=dim,
        intermediate_size=4 * dim,
        num_hidden_layers=SMALL["depth"],
        num_attention_heads=SMALL["num_heads"],
        image_size=SMALL["image_size"],
        patch_size=16,
    )
    tower: torch.nn.Module = transformers.CLIPVisionModel(config)
    return randomise(tower, seed=3).eval()


@pytest.mark.parametrize("dialect", [dialects.uniformer_v2, dialects.clip, dict])
@pytest.mark.parametrize("size", [(64, 64), (64, 32)])
def test_positions_of_another_size(size: tuple[int, int], dialect: Dialect) -> None:
    weights, model = other(small_uniformer_v2()), small_uniformer_v2(image_size=size)
    load_checkpoint(model, dialect(weights))
    positions = weights["positional_embedding"]
    image = positions[1:].unflatten(0, (3, 3)).permute(2, 0, 1)[None]
    places = F.interpolate(image, size=(size[0] // 16, size[1] // 16), mode="bicubic")[0].flatten(1).t()
    torch.testing.assert_close(model.positional_embedding.data, torch.cat([positions[:1], places]))


def test_positions_of_a_square_in_a_rectangle_of_as_many_places() -> None:
    """The authors' are resized although they would fit; those that vtfast saved may be of that rectangle."""
    square, rectangle = other(small_uniformer_v2(image_size=64)), small_uniformer_v2(image_size=(128, 32))
    load_checkpoint(rectangle, square)
    assert torch.equal(rectangle.positional_embedding, square["positional_embedding"])
    load_checkpoint(rectangle, dialects.uniformer_v2(square))
    image = square["positional_embedding"][1:].unflatten(0, (4, 4)).permute(2, 0, 1)[None]
    places = F.interpolate(image, size=(8, 2), mode="bicubic")[0].flatten(1).t()
    torch.testing.assert_close(rectangle.positional_embedding.data[1:], places)


def test_positions_of_a_rectangle_stay_its_own() -> None:
    weights = other(small_uniformer_v2(image_size=(48, 32)))
    with pytest.raises(ValueError, match=r"positional_embedding \(model \(10, 24\), checkpoint \(7, 24\)\)"):
        load_checkpoint(small_uniformer_v2(), dialects.uniformer_v2(weights))


def test_a_head_of_more_classes() -> None:
    weights = other(small_uniformer_v2())
    options = {name: value for name, value in SMALL.items() if name != "num_classes"}
    model = create_model(
        "uniformer_v2_b16", num_classes=3, checkpoint=dialects.uniformer_v2(weights), head_rows=(6, 0, 2), **options
    )
    assert torch.equal(model.head.weight, weights["head.weight"][[6, 0, 2]])
    with pytest.raises(ValueError, match="head has 7 classes"):
        create_model("uniformer_v2_b16", checkpoint=dialects.uniformer_v2(weights), **options)
    with pytest.raises(ValueError, match="head_rows must be None for a model or a checkpoint without head"):
        load_checkpoint(small_uniformer_v2(), dialects.clip(weights), head_rows=(0,))


def test_own_extractor_takes_what_it_has() -> None:
    model = small_uniformer_v2()
    extractor, saved = (FeatureExtractor(small_uniformer_v2(), out_indices=(0,)) for _ in range(2))
    load_checkpoint(extractor, dialects.uniformer_v2(other(model)))
    assert load_checkpoint(saved, extractor.state_dict()).upstream == "vtfast"
    torch.testing.assert_close(saved(CLIP), extractor(CLIP))


def test_what_does_not_fit_is_listed() -> None:
    weights = dialects.uniformer_v2(other(small_uniformer_v2(design="temporal")))
    del weights["backbone.ln_pre.bias"]
    with pytest.raises(ValueError, match="does not fit UniFormerV2, nothing was loaded") as caught:
        load_checkpoint(small_uniformer_v2(), weights)
    message = str(caught.value)
    assert "missing (1): ln_pre.bias" in message
    assert "blocks.0.lmhra1.norm.weight, " in message
    assert "patch_embed.proj.weight (model (24, 3, 1, 16, 16), checkpoint (24, 3, 3, 16, 16))" in message


def test_a_clip_of_other_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"missing \(12\): blocks.2.ln_1.weight.*"):
        load_checkpoint(small_uniformer_v2(), dialects.clip(other(small_uniformer_v2(depth=2))))


def test_torchscript_archives_are_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "ViT-B-16.pt")
    with pytest.raises(ValueError, match=r"ViT-B-16\.pt is a TorchScript archive, .* save its weights alone"):
        load_checkpoint(small_uniformer_v2(), tmp_path / "ViT-B-16.pt")
