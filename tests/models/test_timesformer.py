"""TimeSformer against transformers, and its public methods."""

import pytest
import torch
from oracles import SMALL_TIMESFORMER, huggingface_timesformer, small_timesformer
from target import DEVICE
from torch import Tensor, nn

from vtfast.checkpoints import load_checkpoint
from vtfast.models import FeatureExtractor, TimeSformer, create_model, model_config

SCHEMES = ["divided", "joint", "space", "sparse", "axial"]


def pair(attention_type: str, size: tuple[int, int, int] = (3, 48, 48)) -> tuple[TimeSformer, nn.Module]:
    """A model of ours for clips of `size` and Hugging Face's, with the same weights, in evaluation mode."""
    oracle = huggingface_timesformer(attention_type, size)
    model = small_timesformer(attention_type=attention_type, num_frames=size[0], image_size=size[1:])
    load_checkpoint(model, oracle.state_dict())
    return model, oracle


def gradients(outputs: Tensor, clip: Tensor, model: nn.Module) -> list[Tensor]:
    """Of the clip and of every parameter, in the order of their definition."""
    weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return list(torch.autograd.grad((outputs * weights).sum(), [clip, *model.parameters()]))


def frame_major(
    hidden: Tensor,  # [B, 1 + H*W*T, C], t fastest
    grid: tuple[int, int, int],
) -> Tensor:  # [B, C, T, H, W]
    frames, height, width = grid
    return hidden[:, 1:].unflatten(1, (height, width, frames)).permute(0, 4, 3, 1, 2)


@pytest.mark.every_device
@pytest.mark.parametrize("size", [(3, 48, 48), (1, 16, 80), (4, 64, 32)], ids=str)
@pytest.mark.parametrize("attention_type", ["divided", "joint"])
def test_same_logits_as_transformers(attention_type: str, size: tuple[int, int, int]) -> None:
    model, oracle = pair(attention_type, size)
    clip = torch.randn(2, 3, *size, device=DEVICE)
    with torch.inference_mode():
        logits, expected = model(clip), oracle(clip.transpose(1, 2)).logits
        exact = oracle.double()(clip.double().transpose(1, 2)).logits
    assert (logits - exact).abs().max() <= 2 * (expected - exact).abs().max() + 1e-6 * exact.abs().max()


@pytest.mark.parametrize("size", [(3, 48, 48), (1, 16, 80), (4, 64, 32)], ids=str)
@pytest.mark.parametrize("attention_type", ["divided", "joint"])
def test_hidden_states_and_gradients_agree_with_transformers(attention_type: str, size: tuple[int, int, int]) -> None:
    model, oracle = (m.double() for m in pair(attention_type, size))
    clip = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    expected = oracle(clip.transpose(1, 2), output_hidden_states=True)
    logits = model(clip)
    torch.testing.assert_close(logits, expected.logits)
    grid = (size[0], size[1] // 16, size[2] // 16)
    maps = model.forward_intermediates(clip)
    torch.testing.assert_close(maps, [frame_major(hidden, grid) for hidden in expected.hidden_states[1:]])
    features = model.forward_features(clip)
    normed = oracle.timesformer.layernorm(expected.hidden_states[-1])
    torch.testing.assert_close(features[:, 0], normed[:, 0])
    torch.testing.assert_close(features[:, 1:].mT.unflatten(2, grid), frame_major(normed, grid))

    names = ["clip", *(name for name, _ in model.named_parameters())]
    own = dict(zip(names, gradients(logits, clip, model), strict=True))
    clip_grad, *grads = gradients(expected.logits, clip, oracle)
    converted = small_timesformer(attention_type=attention_type, num_frames=size[0], image_size=size[1:]).double()
    load_checkpoint(converted, dict(zip((name for name, _ in oracle.named_parameters()), grads, strict=True)))
    torch.testing.assert_close(own.pop("clip"), clip_grad)
    torch.testing.assert_close(own, dict(converted.named_parameters()))
    assert all(gradient.abs().max() > 1e-6 for gradient in own.values()), "a parameter that does not matter"


@pytest.mark.parametrize("size", [(3, 48, 48), (2, 32, 64)], ids=str)
def test_space_only_is_the_mean_of_transformers_frames(size: tuple[int, int, int]) -> None:
    """Hugging Face leaves out the mean over frames, which the authors take before the last norm."""
    model, oracle = (m.double() for m in pair("space", size))
    clip = torch.randn(2, 3, *size, dtype=torch.float64)
    body = oracle.timesformer
    frames = body.encoder(body.embeddings(clip.transpose(1, 2))).last_hidden_state  # [B*T, 1 + H*W, C]
    tokens = body.layernorm(frames.unflatten(0, (2, size[0])).mean(dim=1))
    torch.testing.assert_close(model.forward_features(clip), tokens)
    torch.testing.assert_close(model(clip), oracle.classifier(tokens[:, 0]))
    (last,) = model.forward_intermediates(clip, [-1])
    grid = (size[0], size[1] // 16, size[2] // 16)
    torch.testing.assert_close(last, frames[:, 1:].reshape(2, *grid, -1).permute(0, 4, 1, 2, 3))


def nearest(values: Tensor, count: int) -> Tensor:
    """Entry floor(i * old / new) of the first axis for each of the `count` new ones."""
    return values[[i * len(values) // count for i in range(count)]]


@pytest.mark.parametrize(
    ("attention_type", "size"),
    [
        ("divided", (5, 32, 80)),
        ("divided", (3, 16, 144)),
        ("divided", (8, 48, 48)),
        ("divided", (1, 16, 16)),
        ("joint", (2, 96, 64)),
    ],
    ids=str,
)
def test_other_sizes_take_the_nearest_positions(attention_type: str, size: tuple[int, int, int]) -> None:
    """At each size, transformers' model made for it, with its embeddings resized by hand.

    3 x 3 and 1 x 9 places are equally many, which the published code takes for the same grid.
    """
    model, oracle = pair(attention_type)
    weights = oracle.state_dict()
    places, times = (f"timesformer.embeddings.{name}_embeddings" for name in ("position", "time"))
    height, width = size[1] // 16, size[2] // 16
    rows = nearest(weights[places][0, 1:].unflatten(0, (3, 3)), height)
    resized = nearest(rows.transpose(0, 1), width).transpose(0, 1).flatten(0, 1)
    weights[places] = torch.cat([weights[places][:, :1], resized[None]], dim=1)
    weights[times] = nearest(weights[times][0], size[0])[None]
    oracle = huggingface_timesformer(attention_type, size)
    oracle.load_state_dict(weights)
    clip = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(model.double()(clip), oracle.double()(clip.transpose(1, 2)).logits)


@pytest.mark.parametrize(
    ("name", "config", "parameters"),
    [
        ("timesformer_base", {}, 121_566_352),
        ("timesformer_hr", {}, 122_024_080),
        ("timesformer_l", {}, 121_633_936),
        ("timesformer_base", {"attention_type": "joint"}, 86_112_400),
        ("timesformer_base", {"attention_type": "space"}, 86_106_256),
        ("timesformer_base", {"attention_type": "sparse"}, 86_112_400 + 35_453_952),
        ("timesformer_base", {"attention_type": "axial"}, 86_112_400 + 2 * 35_453_952),
    ],
    ids=["base", "hr", "l", "joint", "space", "sparse", "axial"],
)
def test_published_number_of_parameters(name: str, config: dict[str, object], parameters: int) -> None:
    with torch.device("meta"):
        model = create_model(name, **config)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "side", "frames", "stride"),
    [("timesformer_base", 224, 8, 32), ("timesformer_hr", 448, 16, 16), ("timesformer_l", 224, 96, 4)],
)
def test_published_configuration(name: str, side: int, frames: int, stride: int) -> None:
    with torch.device("meta"):
        model = create_model(name)
        assert model(torch.empty(1, 3, frames, side, side)).shape == (1, 400)
    published = model_config(name).preprocessing
    assert (published.mean, published.std) == ((0.45,) * 3, (0.225,) * 3)
    assert (published.short_side, published.crop, published.frames, published.stride) == (side, side, frames, stride)
    assert model.pos_embed.shape == (1, 1 + (side // 16) ** 2, 768)
    assert model.time_embed.shape == (1, frames, 768)


def test_initial_weights() -> None:
    """As published: truncated normal of deviation 0.02; embeddings of time and every layer behind a branch zero."""
    model = TimeSformer(attention_type="axial", depth=2, embed_dim=96, num_heads=3)
    for name, parameter in model.named_parameters():
        if name.startswith("patch_embed"):
            continue
        if "norm" in name and name.endswith("weight"):
            assert (parameter == 1).all(), name
        elif name.endswith("bias") or name == "time_embed" or ".fc." in name:
            assert (parameter == 0).all(), name
        else:
            assert 0.015 < parameter.std() < 0.025, name


def test_norms_have_the_published_epsilon() -> None:
    norms = [module for module in small_timesformer().modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == 2 * 3 + 1
    assert {norm.eps for norm in norms} == {1e-6}


@pytest.mark.parametrize("attention_type", SCHEMES)
def test_feature_maps_are_the_outputs_of_the_blocks(attention_type: str) -> None:
    model = small_timesformer(attention_type=attention_type)
    clip = torch.randn(2, 3, 3, 48, 64)
    outputs: list[Tensor] = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, inputs, out: outputs.append(out))
    maps = model.forward_intermediates(clip)
    assert [(info.index, info.channels, info.reduction) for info in model.stage_info] == [
        (0, 48, (1, 16, 16)), (1, 48, (1, 16, 16)),
    ]  # fmt: skip
    for feature_map, out in zip(maps, outputs, strict=True):
        assert feature_map.shape == (2, 48, 3, 3, 4)
        tokens = out.unflatten(0, (2, 3))[:, :, 1:].flatten(1, 2) if attention_type == "space" else out[:, 1:]
        assert torch.equal(feature_map.flatten(2).mT, tokens)
    extractor = FeatureExtractor(small_timesformer(attention_type=attention_type), out_indices=(0,))
    (first,) = extractor(clip)
    torch.testing.assert_close(first, maps[0])
    assert not any(name.startswith(("model.blocks.1", "model.norm", "model.head")) for name in extractor.state_dict())
    first.square().sum().backward()
    assert all(parameter.grad is not None for parameter in extractor.parameters())


def test_features_only() -> None:
    options = {name: value for name, value in SMALL_TIMESFORMER.items() if name != "num_classes"}
    extractor = create_model("timesformer_base", features_only=True, out_indices=(-1,), **options)
    assert extractor.preprocessing.crop == 224
    assert [m.shape for m in extractor(torch.randn(1, 3, 2, 32, 48))] == [(1, 48, 2, 2, 3)]


def test_head_takes_cls() -> None:
    model = small_timesformer()
    features = model.forward_features(torch.randn(2, 3, 3, 48, 64))
    assert features.shape == (2, 1 + 3 * 3 * 4, 48)
    assert torch.equal(model.forward_head(features, pre_logits=True), features[:, 0])
    torch.testing.assert_close(model.forward_head(features), model.get_classifier()(features[:, 0]))


def test_reset_classifier() -> None:
    model = small_timesformer().double()
    clip = torch.randn(2, 3, 3, 48, 48, dtype=torch.float64)
    model.reset_classifier(5)
    assert model(clip).shape == (2, 5)
    assert model.num_classes == 5
    model.reset_classifier(5, global_pool="")
    assert model(clip).shape == (2, 28, 5)
    model.reset_classifier(0, global_pool="token")
    assert torch.equal(model(clip), model.forward_features(clip)[:, 0])
    with pytest.raises(ValueError, match="num_classes must be at least 0, got -1"):
        model.reset_classifier(-1)
    with pytest.raises(ValueError, match="global_pool must be 'token' or '', got 'avg'"):
        model.reset_classifier(5, "avg")


def test_no_weight_decay() -> None:
    assert small_timesformer().no_weight_decay() == {"cls_token", "pos_embed", "time_embed"}
    assert small_timesformer(attention_type="space").no_weight_decay() == {"cls_token", "pos_embed"}


@pytest.mark.parametrize("attention_type", SCHEMES)
def test_empty_batch(attention_type: str) -> None:
    model = small_timesformer(attention_type=attention_type)
    clip = torch.empty(0, 3, 2, 32, 48)
    assert model(clip).shape == model.train()(clip).shape == (0, 7)
    assert model.forward_intermediates(clip, [0])[0].shape == (0, 48, 2, 2, 3)


def test_patch_size_and_channels_are_options() -> None:
    model = small_timesformer(patch_size=(8, 16), in_channels=1, qkv_bias=False)
    assert model.forward_features(torch.randn(1, 1, 3, 16, 64)).shape == (1, 1 + 3 * 2 * 4, 48)
    assert model.stage_info[0].reduction == (1, 8, 16)
    assert model.pos_embed.shape[1] == 1 + 6 * 3


@pytest.mark.parametrize(
    ("clip", "error", "message"),
    [
        (torch.zeros(1, 3, 4, 32, 32, dtype=torch.int64), TypeError, "clip must be floating point"),
        (torch.zeros(1, 4, 3, 32, 32), ValueError, r"clip must be \(B, C, T, H, W\) with C = 3"),
        (torch.zeros(3, 4, 32, 32), ValueError, r"clip must be \(B, C, T, H, W\)"),
        (torch.zeros(1, 3, 0, 32, 32), ValueError, "clip must have at least one frame"),
        (torch.zeros(1, 3, 2, 0, 32), ValueError, "clip must have at least one frame"),
        (torch.zeros(1, 3, 2, 32, 40), ValueError, r"that the patch \(16, 16\) divides, got \(H, W\) = \(32, 40\)"),
        (torch.zeros(1, 3, 2, 8, 32), ValueError, r"that the patch \(16, 16\) divides, got \(H, W\) = \(8, 32\)"),
        ([0.0], TypeError, "clip must be a tensor, got list"),
    ],
    ids=["integers", "channels", "rank", "no-frames", "no-pixels", "width", "height", "list"],
)
def test_rejects_clip(clip: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        small_timesformer()(clip)


@pytest.mark.parametrize(
    ("option", "error", "message"),
    [
        ({"attention_type": "divided_space_time"}, ValueError, "attention_type must be one of divided, joint, space, "),
        ({"num_heads": 5}, ValueError, "num_heads must divide dim = 48, got 5"),
        ({"image_size": 50}, ValueError, r"patch_size must divide image_size = \(50, 50\), got \(16, 16\)"),
        ({"image_size": (48, 48, 3)}, TypeError, r"image_size must be an int or two ints \(H, W\)"),
        ({"patch_size": 0}, ValueError, r"patch_size must be an int or two ints \(H, W\), each at least 1, got 0"),
        ({"num_frames": 0}, ValueError, "num_frames must be at least 1, got 0"),
        ({"depth": 0}, ValueError, "depth must be at least 1, got 0"),
        ({"drop_path_rate": 1.5}, ValueError, "rate must be between 0 and 1"),
        ({"position_resize": "2d"}, ValueError, "position_resize must be upstream or corrected, got '2d'"),
        ({"global_pool": "avg"}, ValueError, "global_pool must be 'token' or '', got 'avg'"),
    ],
    ids=["scheme", "heads", "image", "image-3d", "patch", "frames", "depth", "drop-path", "resize", "pool"],
)
def test_rejects_option(option: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        small_timesformer(**option)
