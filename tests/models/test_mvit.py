"""MViT's variants, options and public methods."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from oracles import small_mvit, small_mvit_v2
from target import DEVICE
from torch import Tensor, nn

from vtfast.models import FeatureExtractor, MViT, create_model, model_config

CLIP = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0)).to(DEVICE)


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("mvit_v1_b", 400, 36_610_672),
        ("mvit_v1_b_32x3", 400, 36_611_440),
        ("mvit_v1_b_24", 400, 53_115_280),
        ("mvit_v1_b_image", 400, 36_521_296),
        ("mvit_v2_t", 0, 23_493_504),
        ("mvit_v2_s", 400, 34_537_744),
        ("mvit_v2_b", 400, 51_230_128),
        ("mvit_v2_l", 400, 213_390_112),
        ("mvit_v2_s_maskfeat", 400, 36_475_120),
        ("mvit_v2_l_maskfeat", 400, 217_578_064),
    ],
)
def test_published_number_of_parameters(name: str, classes: int, parameters: int) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=classes)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "clip", "rate", "classes"),
    [
        ("mvit_v1_b", (16, 4, 224), 0.2, 400),
        ("mvit_v1_b_image", (1, 1, 224), 0.1, 1000),
        ("mvit_v2_b", (32, 3, 224), 0.3, 400),
        ("mvit_v2_l", (40, 3, 312), 0.75, 400),
    ],
)
def test_published_configuration(name: str, clip: tuple[int, int, int], rate: float, classes: int) -> None:
    with torch.device("meta"):
        model = create_model(name)
    config = model_config(name).preprocessing
    assert (config.frames, config.stride, config.crop) == clip
    assert config.mean == ((0.45,) * 3 if name in ("mvit_v1_b", "mvit_v2_b") else (0.485, 0.456, 0.406))
    assert model.num_classes == classes
    rates = [block.drop_path.rate for block in model.blocks]
    assert rates == pytest.approx([rate * i / (len(rates) - 1) for i in range(len(rates))])


def test_pooling_of_the_published_model_with_24_blocks() -> None:
    """Windows of stride + 1, and no pooling where there is no stride."""
    with torch.device("meta"):
        blocks = create_model("mvit_v1_b_24").blocks
    kernels = [None if block.attn.pool_k is None else block.attn.pool_k.kernel for block in blocks]
    assert kernels == 2 * [(1, 9, 9)] + 3 * [(1, 5, 5)] + 16 * [(1, 3, 3)] + 3 * [None]
    pooled = {i: block.attn.pool_q.kernel for i, block in enumerate(blocks) if block.attn.pool_q is not None}
    assert pooled == {2: (1, 3, 3), 5: (1, 3, 3), 21: (1, 3, 3)}


@pytest.mark.every_device
@pytest.mark.parametrize("size", [(1, 8, 8), (3, 20, 36), (9, 40, 24)], ids=str)
def test_takes_clips_of_any_size(size: tuple[int, int, int]) -> None:
    clip = torch.randn(1, 3, *size, device=DEVICE)
    grid = ((size[0] + 1) // 2, (size[1] + 3) // 4, (size[2] + 3) // 4)
    for model in (small_mvit(), small_mvit_v2()):
        maps = model.forward_intermediates(clip)
        assert maps[0].shape[2:] == grid
        assert maps[1].shape[2:] == (grid[0], (grid[1] + 1) // 2, (grid[2] + 1) // 2)
        assert model(clip).isfinite().all()


def test_takes_images_as_clips_of_one_frame() -> None:
    model = small_mvit(num_frames=1, patch_kernel=(1, 7, 7), patch_stride=(1, 4, 4), pool_kernel=(1, 3, 3))
    image = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(image), model(image.unsqueeze(2)))
    assert model.forward_features(image).shape == (2, 1 + 4, 64)


def test_conv_unshared_has_weights_for_every_channel() -> None:
    model = small_mvit(pool_first=True, pool_mode="conv_unshared")
    assert [len(block.attn.pool_k.weight) for block in model.blocks] == [16, 32, 32, 64]
    assert model(CLIP).shape == (2, 7)


@pytest.mark.parametrize("norm_mean", [False, True])
@pytest.mark.parametrize("cls_token", [False, True])
def test_head_on_the_mean(cls_token: bool, norm_mean: bool) -> None:
    """Over the tokens of the grid; the norm comes before or after."""
    model = small_mvit(cls_token=cls_token, norm_mean=norm_mean, global_pool="avg")
    (last,) = model.forward_intermediates(CLIP, [2])
    tokens = last.flatten(2).mT
    mean = model.norm(tokens.mean(dim=1)) if norm_mean else model.norm(tokens).mean(dim=1)
    pooled = model.forward_head(model.forward_features(CLIP), pre_logits=True)
    torch.testing.assert_close(pooled, mean)
    torch.testing.assert_close(model(CLIP), model.get_classifier()(mean))


def test_head_on_cls() -> None:
    model = small_mvit()
    features = model.forward_features(CLIP)
    assert features.shape == (2, 1 + 2 * 2 * 2, 64)
    torch.testing.assert_close(model(CLIP), model.get_classifier()(features[:, 0]))


def test_reset_classifier() -> None:
    model = small_mvit(norm_mean=True, global_pool="avg").double()
    clip = CLIP.double()
    model.reset_classifier(5)
    assert model(clip).shape == (2, 5)
    model.reset_classifier(5, global_pool="token")
    torch.testing.assert_close(model(clip), model.head(model.norm(model._forward_blocks(clip)[0])[:, 0]))
    model.reset_classifier(5, global_pool="")
    assert model(clip).shape == (2, 9, 5)
    model.reset_classifier(0)
    torch.testing.assert_close(model(clip), model.norm(model._forward_blocks(clip)[0]))
    with pytest.raises(ValueError, match="global_pool must be 'avg' or '', got 'token'"):
        small_mvit(cls_token=False).reset_classifier(5, "token")


@pytest.mark.parametrize(
    ("build", "channels"),
    [(small_mvit, (32, 64, 64)), (small_mvit_v2, (16, 32, 64)), (partial(small_mvit, cls_token=False), (32, 64, 64))],
    ids=["v1", "v2", "no-cls"],
)
def test_maps_are_the_outputs_of_the_stages(build: Callable[[], MViT], channels: tuple[int, ...]) -> None:
    model = build()
    maps = model.forward_intermediates(CLIP)
    assert [tuple(m.shape) for m in maps] == [
        (2, channels[0], 2, 8, 8), (2, channels[1], 2, 4, 4), (2, channels[2], 2, 2, 2),
    ]  # fmt: skip
    assert [(info.channels, info.reduction) for info in model.stage_info] == [
        (channels[0], (2, 4, 4)), (channels[1], (2, 8, 8)), (channels[2], (2, 16, 16)),
    ]  # fmt: skip
    tokens = model.forward_features(CLIP)[:, model.num_prefix :]
    torch.testing.assert_close(model.norm(maps[-1].flatten(2).mT), tokens)


def test_features_keep_only_what_the_maps_need() -> None:
    model, extractor = small_mvit_v2(), FeatureExtractor(small_mvit_v2(), out_indices=(0, 1))
    maps = extractor(CLIP)
    torch.testing.assert_close(maps, model.forward_intermediates(CLIP, (0, 1)))
    names = extractor.state_dict()
    assert any(name.startswith("model.blocks.2.") for name in names)
    assert not any(name.startswith(("model.blocks.3", "model.norm", "model.head")) for name in names)
    sum(m.sum() for m in maps).backward()
    assert all(parameter.grad is not None for parameter in extractor.parameters())


def test_no_weight_decay_names_cls_and_positions() -> None:
    assert small_mvit().no_weight_decay() == {
        "cls_token", "pos_embed_spatial", "pos_embed_temporal", "pos_embed_class",
    }  # fmt: skip
    tables = {f"blocks.{i}.attn.rel_pos_{axis}" for i in range(4) for axis in "thw"}
    assert small_mvit_v2().no_weight_decay() == tables | {"cls_token"}


def test_initial_weights() -> None:
    """As published: truncated normal of deviation 0.02, biases zero, norms one and zero."""
    config = {"depths": (1, 1), "rel_pos_spatial": True, "rel_pos_temporal": True}
    for name, parameter in MViT(**config).named_parameters():
        if name.startswith("patch_embed.proj") or (".pool_" in name and "norm" not in name):
            continue
        if "norm" in name and name.endswith("weight"):
            assert (parameter == 1).all(), name
        elif name.endswith("bias"):
            assert (parameter == 0).all(), name
        else:
            assert 0.015 < parameter.std() < 0.025, name


def test_takes_any_head() -> None:
    model = small_mvit()
    model.head = nn.Sequential(nn.LayerNorm(model.num_features), nn.Linear(model.num_features, 3))
    assert model(CLIP).shape == (2, 3)


def test_empty_batch() -> None:
    assert small_mvit_v2()(torch.empty(0, 3, 4, 32, 32)).shape == (0, 7)


@pytest.mark.parametrize(
    ("clip", "error", "message"),
    [
        (torch.zeros(1, 3, 4, 32, 32, dtype=torch.int64), TypeError, "clip must be floating point"),
        (torch.zeros(1, 4, 3, 32, 32), ValueError, r"clip must be \(B, C, T, H, W\) with C = 3"),
        (torch.zeros(4, 32, 32), ValueError, r"clip must be \(B, C, T, H, W\)"),
        (torch.zeros(1, 3, 0, 32, 32), ValueError, "clip must have at least one frame"),
    ],
    ids=["integers", "channels", "rank", "no-frames"],
)
def test_rejects_clip(clip: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        small_mvit()(clip)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"depths": ()}, r"depths must be one or more ints of at least 1, got \(\)"),
        ({"depths": (1, 0)}, r"depths must be one or more ints of at least 1, got \(1, 0\)"),
        ({"num_frames": 0}, "num_frames must be at least 1, got 0"),
        ({"num_heads": 3}, "num_heads must divide dim_out = 16, got 3"),
        ({"image_size": (0, 3)}, "image_size must be an int or two ints"),
        ({"q_stride": (1, 2)}, "q_stride must be"),
        ({"pool_mode": "min"}, "mode must be one of conv, conv_unshared, avg, max, got 'min'"),
        ({"drop_path_rate": 1.5}, "rate must be between 0 and 1"),
        ({"cls_token": False, "global_pool": "token"}, "global_pool must be 'avg' or '', got 'token'"),
        ({"global_pool": "max"}, "global_pool must be 'token', 'avg' or '', got 'max'"),
    ],
    ids=["no-stage", "empty-stage", "frames", "heads", "size", "stride", "mode", "drop-path", "no-cls", "pool"],
)
def test_rejects_option(option: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        small_mvit(**option)
