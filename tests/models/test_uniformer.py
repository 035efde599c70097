"""UniFormer's variants, numerics, options and public methods."""

from typing import Any

import pytest
import torch
from target import DEVICE
from torch import Tensor, nn
from uniformer_oracles import small_uniformer, small_uniformer_light

from vtfast.models import FeatureExtractor, UniFormer, create_model, model_config

CLIP = torch.randn(2, 3, 4, 64, 64, generator=torch.Generator().manual_seed(0)).to(DEVICE)


@pytest.mark.parametrize(
    ("name", "config", "parameters"),
    [
        ("uniformer_s", {}, 21_400_400),
        ("uniformer_b", {}, 49_813_200),
        ("uniformer_s_split", {}, 27_847_504),
        ("uniformer_b_split", {}, 65_405_136),
        ("uniformer_xxs", {}, 9_833_896),
        ("uniformer_xxs", {"layer_scale": 1.0}, 9_840_616),
        ("uniformer_xs", {}, 16_099_552),
        ("uniformer_xs", {"layer_scale": 1.0}, 16_108_896),
    ],
)
def test_published_number_of_parameters(name: str, config: dict[str, Any], parameters: int) -> None:
    with torch.device("meta"):
        model = create_model(name, **config)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "clip", "rate", "depths"),
    [
        ("uniformer_s", (16, 4, 256, 224), 0.1, [3, 4, 8, 3]),
        ("uniformer_b_split", (16, 4, 256, 224), 0.3, [5, 8, 20, 7]),
        ("uniformer_xxs", (16, 8, 160, 160), 0.05, [2, 5, 8, 2]),
        ("uniformer_xs", (32, 4, 192, 192), 0.1, [3, 5, 9, 3]),
    ],
)
def test_published_configuration(name: str, clip: tuple[int, ...], rate: float, depths: list[int]) -> None:
    with torch.device("meta"):
        model = create_model(name)
    config = model_config(name).preprocessing
    assert (config.frames, config.stride, config.short_side, config.crop) == clip
    assert (config.mean, config.std) == ((0.45,) * 3, (0.225,) * 3)
    stages = [getattr(model, f"blocks{stage}") for stage in range(1, 5)]
    assert [len(blocks) for blocks in stages] == depths
    rates = [block.drop_path.rate for blocks in stages for block in blocks]
    assert rates == pytest.approx([rate * i / (len(rates) - 1) for i in range(len(rates))])


def test_norms() -> None:
    """LayerNorm of patches with an eps of 1e-5, of attention blocks with 1e-6; batch normalisation as is usual."""
    for name, module in small_uniformer(split=True).named_modules():
        if isinstance(module, nn.LayerNorm):
            assert module.eps == (1e-5 if name.startswith("patch_embed") else 1e-6), name
        elif isinstance(module, nn.BatchNorm3d):
            assert (module.eps, module.momentum) == (1e-5, 0.1), name
    batch_norms = {name for name, module in small_uniformer().named_modules() if isinstance(module, nn.BatchNorm3d)}
    assert batch_norms == {"norm"} | {f"blocks{i}.0.norm{j}" for i in (1, 2) for j in (1, 2)}


@pytest.mark.parametrize("std", [False, True])
def test_patches(std: bool) -> None:
    model = small_uniformer(std=std)
    convs = [getattr(model, f"patch_embed{stage}").proj for stage in range(1, 5)]
    kernels = [(3, 4, 4)] + 3 * [(3, 2, 2) if std else (1, 2, 2)]
    assert [conv.kernel_size for conv in convs] == kernels
    assert [conv.stride for conv in convs] == [(2, 4, 4)] + 3 * [(1, 2, 2)]
    assert [conv.padding for conv in convs] == [(kernel[0] // 2, 0, 0) for kernel in kernels]


def test_local_relations_have_no_activation() -> None:
    """They are affine, up to the kernel's padding even without one."""
    block = small_uniformer().double().blocks1[0]
    x, y = torch.randn(2, 1, 3, 4, 5, 8, dtype=torch.float64)
    zero = block._aggregate(torch.zeros_like(x))
    torch.testing.assert_close(block._aggregate(x + y) + zero, block._aggregate(x) + block._aggregate(y))
    assert (block.pos_embed.weight.shape[2:], block.attn.weight.shape[2:]) == ((3, 3, 3), (5, 5, 5))


def test_time_reaches_a_split_block_through_attention_in_space_only() -> None:
    block = small_uniformer(split=True).blocks3[0]
    x = torch.randn(1, 2, 3, 4, 16)
    before = block(x)
    nn.init.zeros_(block.attn.proj.weight)
    without_space = block(x)
    nn.init.normal_(block.t_attn.proj.weight)
    torch.testing.assert_close(block(x), without_space)
    assert not torch.allclose(before, without_space)


def test_split_blocks_drop_places_over_time_and_frames_in_space() -> None:
    """A dropped attention over time leaves a place's tokens as they were; one in space a whole frame's."""
    block = small_uniformer(split=True).blocks3[0].train()
    block.drop_path.rate = 0.5
    x = torch.zeros(2, 4, 5, 6, 16)
    ones = torch.ones_like(x)
    over_time = block._attend(x, lambda _, **settings: ones, x, (2, 1, 5, 6, 1))
    in_space = block._attend(x, lambda _, **settings: ones, x, (2, 4, 1, 1, 1), torch.full((16,), 3.0))
    for result, axes, value in ((over_time, (1, 4), 2.0), (in_space, (2, 3, 4), 6.0)):
        assert set(result.unique().tolist()) == {0.0, value}
        assert torch.equal(result.amax(axes), result.amin(axes))


def test_initial_weights() -> None:
    """As published: truncated normal of deviation 0.02 in blocks with attention; that over time is silent at first."""
    model = UniFormer(depths=(1, 1, 1, 1), split=True, layer_scale=0.1)
    for name, parameter in model.named_parameters():
        if ".t_attn." in name:
            assert (parameter == float(name.endswith("proj.weight"))).all(), name
        elif name.startswith("head") or (name.startswith(("blocks3", "blocks4")) and "pos_embed" not in name):
            if parameter.dim() == 2:
                assert 0.018 < parameter.std() < 0.022, name
            elif "gamma" not in name:
                assert (parameter == float("norm" in name and name.endswith("weight"))).all(), name
        elif name.endswith(("conv1.weight", "fc2.weight")):
            bound = parameter.shape[1] ** -0.5  # of PyTorch's convolutions
            assert 0.95 * bound < parameter.abs().max() <= bound, name
        if "gamma" in name:
            assert (parameter == 0.1).all()


@pytest.mark.every_device
def test_takes_clips_of_any_size() -> None:
    for size, grid in {(1, 32, 32): (1, 8, 8), (5, 45, 70): (3, 11, 17), (8, 64, 33): (4, 16, 8)}.items():
        for model in (small_uniformer(), small_uniformer(split=True, std=True), small_uniformer_light()):
            maps = model.forward_intermediates(torch.randn(1, 3, *size, device=DEVICE))
            light_grid = (grid[0], -(-size[1] // 4), -(-size[2] // 4))
            t, h, w = grid if isinstance(model, UniFormer) else light_grid
            assert [tuple(m.shape[2:]) for m in maps] == [(t, h >> i, w >> i) for i in range(4)]
            assert model(torch.randn(1, 3, *size, device=DEVICE)).isfinite().all()


def test_head_is_on_the_mean_of_normalised_tokens() -> None:
    model = small_uniformer()
    maps = model.forward_intermediates(CLIP)
    assert [tuple(m.shape) for m in maps] == [(2, 8, 2, 16, 16), (2, 16, 2, 8, 8), (2, 16, 2, 4, 4), (2, 24, 2, 2, 2)]
    assert [info.reduction for info in model.stage_info] == [(2, 4, 4), (2, 8, 8), (2, 16, 16), (2, 32, 32)]
    features = model.forward_features(CLIP)
    torch.testing.assert_close(features, model.norm(maps[-1]).permute(0, 2, 3, 4, 1))
    torch.testing.assert_close(model(CLIP), model.get_classifier()(model.norm(maps[-1]).mean((2, 3, 4))))


def test_reset_classifier() -> None:
    model = small_uniformer().double()
    model.reset_classifier(5)
    assert model(CLIP.double()).shape == (2, 5)
    model.reset_classifier(5, global_pool="")
    assert model(CLIP.double()).shape == (2, 2, 2, 2, 5)
    model.reset_classifier(0, global_pool="avg")
    assert model(CLIP.double()).shape == (2, 24)


def test_features_keep_only_what_the_maps_need() -> None:
    model, extractor = small_uniformer(), FeatureExtractor(small_uniformer(), out_indices=(0, 2))
    maps = extractor(CLIP)
    torch.testing.assert_close(maps, model.forward_intermediates(CLIP, (0, 2)))
    assert {name.split(".")[1] for name in extractor.state_dict()} == {
        f"{part}{stage}" for part in ("patch_embed", "blocks") for stage in (1, 2, 3)
    }
    assert extractor.model.pruned == ("norm.", "patch_embed4.", "blocks4.")
    sum(m.sum() for m in maps).backward()
    assert all(parameter.grad is not None for parameter in extractor.parameters())
    assert extractor(CLIP[..., :16, :16])[1].shape == (2, 16, 2, 1, 1), "three stages take smaller clips"


def test_dropout_and_stochastic_depth_act_in_training_only() -> None:
    model = small_uniformer(proj_drop_rate=0.5, drop_rate=0.5, drop_path_rate=1.0)
    assert torch.equal(model(CLIP), model(CLIP))
    parts = (model.pos_drop, model.head_drop, model.blocks1[0].mlp, model.blocks3[0].attn, model.blocks4[0].mlp)
    for part in parts:
        part.train()
        assert not torch.equal(model(CLIP), model(CLIP))
        part.eval()
    block = model.blocks4[0]
    x = torch.randn(2, 2, 3, 4, 24)
    block.drop_path.train()
    torch.testing.assert_close(block(x), block.pos_embed.tokens(x, residual=True))


def test_recomputed_blocks_update_statistics_once() -> None:
    statistics = []
    for recompute in (False, True):
        model = small_uniformer().train()
        model.set_grad_checkpointing(recompute)
        model(CLIP).sum().backward()
        statistics.append(dict(model.named_buffers()))
    torch.testing.assert_close(*statistics, rtol=0, atol=0)


def test_no_weight_decay_names_cls() -> None:
    """Position embeddings are convolutions, which decay as published."""
    assert small_uniformer().no_weight_decay() == set()
    assert small_uniformer_light().no_weight_decay() == {"cls_token"}


def test_empty_batch() -> None:
    assert small_uniformer()(torch.empty(0, 3, 4, 32, 32)).shape == (0, 7)


@pytest.mark.parametrize(
    ("clip", "error", "message"),
    [
        (torch.zeros(1, 3, 4, 64, 64, dtype=torch.uint8), TypeError, "clip must be floating point"),
        (torch.zeros(1, 4, 3, 64, 64), ValueError, r"clip must be \(B, C, T, H, W\) with C = 3"),
        (
            torch.zeros(1, 3, 4, 64, 31),
            ValueError,
            r"clip must have at least 32 x 32 pixels, got \(H, W\) = \(64, 31\)",
        ),
    ],
    ids=["integers", "channels", "small"],
)
def test_rejects_clip(clip: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        small_uniformer()(clip)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"depths": (1, 1, 1)}, r"depths must be 4 ints of at least 1, got \(1, 1, 1\)"),
        ({"embed_dims": (8, 0, 8, 8)}, r"embed_dims must be 4 ints of at least 1"),
        ({"head_dim": 10}, r"head_dim must divide the embed_dims \(16, 24\) of the last stages, got 10"),
        ({"drop_path_rate": 1.5}, "rate must be between 0 and 1"),
        ({"global_pool": "token"}, "global_pool must be 'avg' or '', got 'token'"),
    ],
    ids=["stages", "width", "heads", "drop-path", "pool"],
)
def test_rejects_option(option: dict[str, Any], message: str) -> None:
    for build in (small_uniformer, small_uniformer_light):
        with pytest.raises(ValueError, match=message):
            build(**option)
