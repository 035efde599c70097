"""Video Swin against torchvision, and its public methods."""

import copy

import pytest
import torch
from oracles import small_swin, small_torchvision_swin, torchvision_swin
from target import DEVICE
from torch import Tensor, nn

from vtfast.checkpoints import load_checkpoint
from vtfast.models import VideoSwin, create_model


def pair(name: str | None = None) -> tuple[VideoSwin, nn.Module]:
    """A model of ours and torchvision's, with the same weights, in evaluation mode."""
    oracle = torchvision_swin(name) if name else small_torchvision_swin()
    model = create_model(name).eval().to(DEVICE) if name else small_swin()
    load_checkpoint(model, oracle.state_dict())
    return model, oracle


@pytest.fixture(scope="module")
def swin3d_t() -> tuple[VideoSwin, nn.Module]:
    return pair("swin3d_t")


def gradients(model: nn.Module, clip: Tensor, weights: Tensor) -> list[Tensor]:
    """Of the clip and of every parameter, in the order of their definition."""
    clip = clip.clone().requires_grad_()
    return list(torch.autograd.grad((model(clip) * weights).sum(), [clip, *model.parameters()]))


@pytest.mark.every_device
@pytest.mark.parametrize("size", [(1, 1, 32, 32), (1, 5, 90, 130)], ids=str)
def test_same_logits_as_torchvision(size: tuple[int, ...], swin3d_t: tuple[VideoSwin, nn.Module]) -> None:
    model, oracle = swin3d_t
    clip = torch.randn(size[0], 3, *size[1:], device=DEVICE)
    with torch.inference_mode():
        exact = copy.deepcopy(oracle).double()(clip.double())
        error, oracle_error = ((m(clip) - exact).abs().max() for m in (model, oracle))
    assert error <= 2 * oracle_error + 1e-6 * exact.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("size", [(2, 16, 224, 224), (1, 34, 200, 200)], ids=str)
def test_same_logits_as_torchvision_on_whole_clips(
    size: tuple[int, ...], swin3d_t: tuple[VideoSwin, nn.Module]
) -> None:
    model, oracle = swin3d_t
    clip = torch.randn(size[0], 3, *size[1:])
    with torch.inference_mode():
        torch.testing.assert_close(model(clip), oracle(clip), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "size",
    [(9, 40, 52), (17, 33, 61), (2, 60, 20), (3, 5, 7)],
    ids=["odd", "primes", "flat", "tiny"],
)
def test_gradients_agree_with_torchvision(size: tuple[int, ...]) -> None:
    model, oracle = (m.double() for m in pair())
    clip = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(model(clip), oracle(clip))
    weights = torch.randn(2, 7, dtype=torch.float64)
    model_names = [name for name, _ in model.named_parameters()]
    converted = small_swin().double()
    own = dict(zip(["clip", *model_names], gradients(model, clip, weights), strict=True))
    clip_grad, *grads = gradients(oracle, clip, weights)
    upstream_names = [name for name, _ in oracle.named_parameters()]
    load_checkpoint(converted, dict(zip(upstream_names, grads, strict=True)))
    torch.testing.assert_close(own.pop("clip"), clip_grad)
    torch.testing.assert_close(own, dict(converted.named_parameters()))


@pytest.mark.parametrize(
    ("name", "millions"), [("swin3d_t", 28.158070), ("swin3d_s", 49.816678), ("swin3d_b", 88.048984)]
)
def test_published_number_of_parameters(name: str, millions: float) -> None:
    with torch.device("meta"):
        model = create_model(name)
    assert sum(p.numel() for p in model.parameters()) == round(millions * 1e6)


def test_stochastic_depth_rises_to_the_published_rate() -> None:
    with torch.device("meta"):
        rates = [block.drop_path.rate for stage in create_model("swin3d_b").stages for block in stage.blocks]
    assert rates[0] == 0.0
    assert rates[-1] == 0.3
    assert rates == sorted(rates)


@pytest.mark.parametrize(
    ("grid", "agree"),
    [
        ((8, 8, 8), True),
        ((2, 8, 8), True),
        ((8, 3, 8), True),
        ((8, 2, 8), False),
        ((8, 8, 2), False),
        ((2, 2, 1), False),
    ],
    ids=str,
)
def test_corrected_bias_differs_exactly_where_a_window_shrinks_in_space(grid: tuple[int, ...], agree: bool) -> None:
    options = {"depths": (2,), "num_heads": (2,)}
    upstream, corrected = small_swin(**options), small_swin(**options, shrunk_window_bias="corrected")
    clip = torch.randn(1, 3, 2 * grid[0], 4 * grid[1], 4 * grid[2])
    assert torch.equal(upstream(clip), corrected(clip)) == agree


def test_corrected_bias_is_that_of_a_small_window() -> None:
    """A window that shrinks to the grid equals a model made for that window, with the middle of the table."""
    options = {"depths": (1,), "num_heads": (2,)}
    large = small_swin(**options, shrunk_window_bias="corrected")
    small = small_swin(**options, window=(2, 2, 1))
    weights = large.state_dict()
    name = "stages.0.blocks.0.attn.relative_position_bias_table"
    weights[name] = weights[name].reshape(7, 5, 5, 2)[2:5, 1:4, 2:3].reshape(-1, 2)
    small.load_state_dict(weights)
    clip = torch.randn(1, 3, 4, 8, 4)
    torch.testing.assert_close(large(clip), small(clip))


def test_head_pools_the_normalised_features() -> None:
    model = small_swin()
    clip = torch.randn(2, 3, 6, 40, 52)
    features = model.forward_features(clip)
    assert features.shape == (2, 3, 2, 2, model.num_features)
    pooled = model.forward_head(features, pre_logits=True)
    torch.testing.assert_close(pooled, features.flatten(1, 3).mean(dim=1))
    torch.testing.assert_close(model(clip), model.get_classifier()(pooled))


def test_reset_classifier() -> None:
    model = small_swin().double()
    clip = torch.randn(2, 3, 4, 32, 32, dtype=torch.float64)
    model.reset_classifier(5)
    assert model(clip).shape == (2, 5)
    assert model.num_classes == 5
    model.reset_classifier(5, global_pool="")
    assert model(clip).shape == (2, 2, 1, 1, 5)
    model.reset_classifier(0, global_pool="avg")
    torch.testing.assert_close(model(clip), model.forward_head(model.forward_features(clip), pre_logits=True))
    with pytest.raises(ValueError, match="num_classes must be at least 0, got -1"):
        model.reset_classifier(-1)
    with pytest.raises(ValueError, match="global_pool must be 'avg' or '', got 'max'"):
        model.reset_classifier(5, "max")


def test_takes_any_head() -> None:
    model = small_swin()
    model.head = nn.Sequential(nn.LayerNorm(model.num_features), nn.Linear(model.num_features, 3))
    assert model(torch.randn(1, 3, 4, 32, 32)).shape == (1, 3)


def test_head_dropout_acts_in_training_only() -> None:
    model, clip = small_swin(drop_rate=0.5), torch.randn(1, 3, 4, 32, 32)
    assert torch.equal(model(clip), model(clip))
    model.stages.eval()
    model.head_drop.train()
    assert not torch.equal(model(clip), model(clip))


def test_no_weight_decay_names_the_bias_tables() -> None:
    model = small_swin()
    names = model.no_weight_decay()
    assert len(names) == 6
    assert names < set(dict(model.named_parameters()))


def test_train_and_eval_return_the_model() -> None:
    model = small_swin()
    assert model.train() is model
    assert model.eval() is model


def test_initial_weights() -> None:
    """As published: truncated normal of deviation 0.02, biases zero, norms one and zero."""
    model = VideoSwin(depths=(2,), num_heads=(3,))
    for name, parameter in model.named_parameters():
        if name.startswith("patch_embed.proj"):
            continue
        if "norm" in name and name.endswith("weight"):
            assert (parameter == 1).all(), name
        elif name.endswith("bias"):
            assert (parameter == 0).all(), name
        else:
            assert 0.017 < parameter.std() < 0.023, name


def test_empty_batch() -> None:
    assert small_swin()(torch.empty(0, 3, 4, 32, 32)).shape == (0, 7)


def test_patch_size_and_window_are_options() -> None:
    model = small_swin(patch_size=(1, 8, 8), window=2, in_channels=1, patch_norm=False)
    assert model.forward_features(torch.randn(1, 1, 3, 128, 64)).shape == (1, 3, 2, 1, 128)


@pytest.mark.parametrize(
    ("clip", "error", "message"),
    [
        (torch.zeros(1, 3, 4, 32, 32, dtype=torch.int64), TypeError, "clip must be floating point"),
        (torch.zeros(1, 4, 3, 32, 32), ValueError, r"clip must be \(B, C, T, H, W\) with C = 3"),
        (torch.zeros(3, 4, 32, 32), ValueError, r"clip must be \(B, C, T, H, W\)"),
        (torch.zeros(1, 3, 0, 32, 32), ValueError, "clip must have at least one frame"),
    ],
    ids=["integers", "channels", "rank", "no-frames"],
)
def test_rejects_clip(clip: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        small_swin()(clip)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"depths": (2, 2)}, r"depths and num_heads must name the same stages, got \(2, 2\) and \(1, 2, 4, 4\)"),
        ({"num_heads": (1, 2, 4, 7)}, "num_heads must divide dim = 128, got 7"),
        ({"window": (8, 7, 0)}, "window must be"),
        ({"drop_path_rate": 1.5}, "rate must be between 0 and 1"),
        ({"shrunk_window_bias": "none"}, "shrunk_window_bias must be upstream or corrected, got 'none'"),
        ({"global_pool": "max"}, "global_pool must be 'avg' or '', got 'max'"),
    ],
    ids=["stages", "heads", "window", "drop-path", "bias", "pool"],
)
def test_rejects_option(option: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_swin(**option)
