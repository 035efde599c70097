"""UniFormerV2's variants, numerics, options and public methods."""

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from target import DEVICE
from torch import Tensor, nn
from uniformer_v2_oracles import SIZE, small_uniformer_v2

from vtfast.models import FeatureExtractor, UniFormerV2, create_model, model_config

CLIP = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0)).to(DEVICE)
TEMPORAL: dict[str, Any] = {"design": "temporal", "num_classes": 174}
both = pytest.mark.parametrize("design", ["scene", "temporal"])


@pytest.mark.parametrize(
    ("name", "config", "parameters"),
    [
        ("uniformer_v2_b16", {}, 114_552_208),
        ("uniformer_v2_b16", TEMPORAL, 162_992_814),
        ("uniformer_v2_l14", {}, 354_099_600),
        ("uniformer_v2_l14", TEMPORAL, 573_949_966),
        ("uniformer_v2_l14_336", {}, 354_427_280),
        ("uniformer_v2_l14_336", {"frozen": True}, 354_426_256),
    ],
)
def test_published_number_of_parameters(name: str, config: dict[str, Any], parameters: int) -> None:
    with torch.device("meta"):
        model = create_model(name, **config)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "config", "first_global", "rates"),
    [
        ("uniformer_v2_b16", {}, 8, (0.0, 0.0)),
        ("uniformer_v2_b16", TEMPORAL, 4, (0.2, 0.4)),
        ("uniformer_v2_l14", {}, 20, (0.0, 0.0)),
        ("uniformer_v2_l14", TEMPORAL, 8, (0.2, 0.4)),
    ],
)
def test_published_configuration(
    name: str, config: dict[str, Any], first_global: int, rates: tuple[float, float]
) -> None:
    with torch.device("meta"):
        model = create_model(name, **config)
    assert model.first_global == first_global
    assert first_global + len(model.global_blocks) == len(model.blocks)
    for blocks, last in zip((model.blocks, model.global_blocks), rates, strict=True):
        wanted = [last * i / (len(blocks) - 1) for i in range(len(blocks))]
        assert [block.drop_path.rate for block in blocks] == pytest.approx(wanted)
    assert {block.mlp.dropout for block in model.global_blocks} == {model.head_drop.p} == {0.5}
    assert all((block.lmhra1 is None) is (config == {}) for block in model.blocks)


def test_shapes_without_memory() -> None:
    with torch.device("meta"):
        model = create_model("uniformer_v2_l14", **TEMPORAL)
        assert model(torch.empty(2, 3, 16, 224, 224)).shape == (2, 174)


def test_published_preprocessing() -> None:
    for name, side in {"uniformer_v2_b16": 224, "uniformer_v2_l14": 224, "uniformer_v2_l14_336": 336}.items():
        config = model_config(name).preprocessing
        assert (config.mean, config.std, config.short_side, config.crop) == ((0.45,) * 3, (0.225,) * 3, side, side)
        with torch.device("meta"):
            assert create_model(name).places == (side // 14,) * 2 if "l14" in name else (14, 14)


@both
def test_norms_and_patches(design: str) -> None:
    model = small_uniformer_v2(design=design)
    assert all(norm.eps == 1e-5 for norm in model.modules() if isinstance(norm, (nn.LayerNorm, nn.BatchNorm3d)))
    proj = model.patch_embed.proj
    assert proj.bias is None
    shapes = (proj.kernel_size, proj.stride, tuple(proj.padding))
    if design == "scene":
        assert shapes == ((1, 16, 16), (1, 16, 16), (0, 0, 0))
    else:
        assert shapes == ((3, 16, 16), (2, 16, 16), (1, 0, 0))


def test_initial_weights() -> None:
    """Local relations and global blocks are silent at first, and half of the result is cls."""
    model = UniFormerV2(embed_dim=48, depth=2, num_heads=4, image_size=32, design="temporal").eval()
    silent = re.compile(r"lmhra.\.expand|dpe\.bias|temporal_cls_token|balance|global_blocks.*(attn\.proj|mlp\.fc2)")
    for name, parameter in model.named_parameters():
        if silent.search(name):
            assert not parameter.any(), name
        elif parameter.dim() > 1:
            assert parameter.any(), name
    clip = torch.randn(1, 3, 4, 32, 32)
    x, token, _ = model._forward_blocks(clip)
    assert not token.any()
    torch.testing.assert_close(model.forward_features(clip), model.norm(0.5 * x[:, :, 0].mean(1)))


@both
def test_head_is_on_the_video_token(design: str) -> None:
    model = small_uniformer_v2(design=design)
    x, token, _ = model._forward_blocks(CLIP)
    share = torch.sigmoid(model.balance)
    features = model.norm((1 - share) * token + share * x[:, :, 0].mean(dim=1))
    torch.testing.assert_close(model.forward_features(CLIP), features)
    torch.testing.assert_close(model(CLIP), F.linear(features, model.head.weight, model.head.bias))
    torch.testing.assert_close(model.forward_head(features, pre_logits=True), features)


def test_local_relations_leave_cls_alone_and_have_no_activation() -> None:
    block = small_uniformer_v2(design="temporal").double().blocks[0]
    x = torch.randn(1, 4, 1 + 9, 24, dtype=torch.float64)
    related = block._relate(x, (4, 3, 3), block.lmhra1)
    assert torch.equal(related[:, :, 0], x[:, :, 0])
    a, b = torch.randn(2, 1, 4, 3, 3, 24, dtype=torch.float64)
    relation = block.lmhra1
    torch.testing.assert_close(relation(a + b) + relation(torch.zeros_like(a)), relation(a) + relation(b))
    assert (relation.reduce.out_features, tuple(relation.conv.weight.shape)) == (16, (16, 1, 3, 1, 1))
    moved = a.clone()
    moved[:, 2] += 1
    changed = (relation(moved) - relation(a)).abs().amax((2, 3, 4))[0] > 1e-9
    assert changed.tolist() == [False, True, True, True]


def test_what_global_blocks_read() -> None:
    """Every token of every frame, cls too; their position embeddings reach nothing else."""
    model = small_uniformer_v2()
    block, x = model.global_blocks[0], torch.randn(2, 4, 1 + 9, 24, requires_grad=True)
    block(torch.randn(2, 1, 24), x, (4, 3, 3)).square().sum().backward()
    assert (x.grad.abs().amax(-1) > 0).all()
    before, maps = model(CLIP), model.forward_intermediates(CLIP)
    tokens = model._forward_blocks(CLIP)[0]
    nn.init.normal_(block.dpe.weight)
    assert not torch.allclose(model(CLIP), before)
    torch.testing.assert_close(model.forward_intermediates(CLIP), maps, rtol=0, atol=0)
    assert torch.equal(model._forward_blocks(CLIP)[0], tokens)


@pytest.mark.every_device
@pytest.mark.parametrize(
    ("design", "size"),
    [("scene", (1, 16, 16)), ("scene", (5, 32, 80)), ("temporal", (2, 16, 48)), ("temporal", (6, 64, 32))],
    ids=str,
)
def test_takes_clips_of_any_size(design: str, size: tuple[int, int, int]) -> None:
    """A batch of two is two clips, whatever their length."""
    model = small_uniformer_v2(design=design)
    clips = torch.randn(2, 3, *size, device=DEVICE)
    logits = model(clips)
    assert logits.shape == (2, 7)
    torch.testing.assert_close(logits[1:], model(clips[1:]))
    assert model(clips[:0]).shape == (0, 7)


def test_height_and_width_are_not_exchanged() -> None:
    """As many places as a square of 4 x 4: resized in their own shape, and convolved in it."""
    model = small_uniformer_v2(image_size=64)
    clip = torch.randn(1, 3, 4, 32, 128)
    places = model.positional_embedding[1:].unflatten(0, (4, 4)).permute(2, 0, 1)[None]
    places = F.interpolate(places, size=(2, 8), mode="bicubic", align_corners=False)[0].flatten(1).T
    patches = model.patch_embed(clip).flatten(2, 3) + places
    cls = (model.class_embedding + model.positional_embedding[0]).expand(1, 4, 1, -1)
    tokens, grid = model._embed(clip)
    assert grid == (4, 2, 8)
    torch.testing.assert_close(tokens, model.ln_pre(torch.cat([cls, patches], dim=2)))
    assert not torch.allclose(model(clip), model(clip.mT))


@pytest.mark.parametrize(
    ("design", "size", "message"),
    [
        ("temporal", (5, 48, 48), "clip must have an even number of frames for the temporal design, got 5"),
        ("scene", (4, 48, 56), r"that the patch \(16, 16\) divides, got \(H, W\) = \(48, 56\)"),
        ("temporal", (4, 8, 48), r"that the patch \(16, 16\) divides, got \(H, W\) = \(8, 48\)"),
        ("scene", (0, 48, 48), "clip must have at least one frame"),
    ],
    ids=["odd", "width", "height", "no-frames"],
)
def test_rejects_clip(design: str, size: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_uniformer_v2(design=design)(torch.zeros(1, 3, *size))
    with pytest.raises(TypeError, match="clip must be a tensor, got list"):
        small_uniformer_v2(design=design)([0.0])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"design": "kinetics"}, "design must be one of scene, temporal, got 'kinetics'"),
        ({"fusion": "mean"}, "fusion must be one of sequential, parallel, hierarchical_kv, hierarchical_q, got 'mean'"),
        ({"drop_path_mode": "token"}, "drop_path_mode must be one of upstream, per_sample, got 'token'"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"global_depth": 4}, "global_depth must be between 1 and depth = 3, got 4"),
        ({"local_reduction": 0.5}, "local_reduction must be between 1 and embed_dim = 24, got 0.5"),
        ({"num_heads": 5}, "num_heads must divide dim = 24, got 5"),
        ({"image_size": 50}, r"patch_size must divide image_size = \(50, 50\), got \(16, 16\)"),
        ({"drop_path_rate": 1.5}, "rate must be between 0 and 1"),
        ({"global_pool": "avg"}, "global_pool must be 'token' or '', got 'avg'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_rejects_option(option: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_uniformer_v2(**option)


@both
def test_maps_are_the_outputs_of_the_blocks(design: str) -> None:
    model, extractor = small_uniformer_v2(design=design), FeatureExtractor(small_uniformer_v2(design=design), (0, 2))
    frames = 4 if design == "scene" else 2
    x, grid = model._embed(CLIP)
    expected = []
    for block in model.blocks:
        x = block(x, grid)
        expected.append(x[:, :, 1:].unflatten(2, (3, 3)).permute(0, 4, 1, 2, 3))
    maps = extractor(CLIP)
    torch.testing.assert_close(maps, [expected[0], expected[2]])
    assert [tuple(m.shape) for m in maps] == [(2, 24, frames, 3, 3)] * 2
    assert {info.reduction for info in extractor.feature_info} == {(4 // frames, 16, 16)}


def test_features_keep_only_what_the_maps_need() -> None:
    extractor = FeatureExtractor(small_uniformer_v2(design="temporal", fusion="parallel"), (1,))
    assert len(extractor.model.blocks) == 2
    sum(m.sum() for m in extractor(CLIP)).backward()
    assert all(parameter.grad is not None for parameter in extractor.parameters())
    model = extractor.model
    torch.testing.assert_close(model(CLIP), model._forward_blocks(CLIP)[0][:, :, 0].mean(1))


def test_frozen_model_trains_what_reads_the_clip() -> None:
    model = small_uniformer_v2(frozen=True, design="temporal")
    assert model.balance is None
    trained = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"global_blocks", "temporal_cls_token", "norm", "head"}
    model(CLIP).sum().backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in model.parameters())
    torch.testing.assert_close(model.forward_features(CLIP), model.norm(model._forward_blocks(CLIP)[1]))


def test_fused_model_gives_the_same_logits() -> None:
    model = small_uniformer_v2(design="temporal").double()
    expected = model(CLIP.double())
    count = len(list(model.buffers()))
    assert model.fuse() is model
    assert (count, len(list(model.buffers()))) == (18, 0)
    torch.testing.assert_close(model(CLIP.double()), expected)
    torch.testing.assert_close(model.fuse()(CLIP.double()), expected)
    with pytest.raises(RuntimeError, match=r"fuse\(\) needs a model in evaluation mode"):
        model.train().fuse()


def test_reset_classifier_and_weight_decay() -> None:
    model = small_uniformer_v2().double()
    model.reset_classifier(3)
    assert model(CLIP.double()).shape == (2, 3)
    model.reset_classifier(0)
    torch.testing.assert_close(model(CLIP.double()), model.forward_features(CLIP.double()))
    names = {"class_embedding", "positional_embedding", "temporal_cls_token", "balance"}
    assert model.no_weight_decay() == names


def test_patch_size_and_channels_are_options() -> None:
    model = small_uniformer_v2(patch_size=(8, 16), in_channels=1, design="temporal")
    assert model.stage_info[0].reduction == (2, 8, 16)
    maps: list[Tensor] = model.forward_intermediates(torch.randn(1, 1, 2, 16, 64))
    assert maps[0].shape == (1, 24, 1, 2, 4)
