from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vtfast import use_backend
from vtfast.layers import DepthwiseConv3d

CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "block": {"kernel_size": 3, "padding": 1},
    "large": {"kernel_size": (5, 5, 5), "padding": 2, "bias": False},
    "time": {"kernel_size": (3, 1, 1), "padding": (1, 0, 0)},
    "halved": {"kernel_size": (1, 3, 3), "stride": (1, 2, 2), "padding": (0, 1, 1)},
    "even": {"kernel_size": (2, 4, 4), "stride": (2, 4, 4), "padding": 0},
}
every_convolution = pytest.mark.parametrize("name", CONVOLUTIONS)
GRID = (4, 5, 6)


def plain(channels: int = 6, **options: Any) -> nn.Conv3d:
    return nn.Conv3d(channels, channels, groups=channels, **options)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d], ids=["contiguous", "last"])
@every_convolution
def test_is_a_depthwise_conv3d(name: str, layout: torch.memory_format) -> None:
    conv = plain(**CONVOLUTIONS[name]).double()
    layer = DepthwiseConv3d(6, **CONVOLUTIONS[name]).double()
    layer.load_state_dict(conv.state_dict())
    x = torch.randn(2, 6, *GRID, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    out, expected = layer(x), conv(x)
    torch.testing.assert_close(out, expected)
    assert out.is_contiguous(memory_format=torch.channels_last_3d)
    grad = torch.randn_like(expected)
    grads = torch.autograd.grad(out, [x, *layer.parameters()], grad)
    torch.testing.assert_close(grads, torch.autograd.grad(expected, [x, *conv.parameters()], grad))


@every_convolution
def test_the_same_seed_makes_the_same_parameters(name: str) -> None:
    torch.manual_seed(0)
    conv = plain(**CONVOLUTIONS[name])
    torch.manual_seed(0)
    layer = DepthwiseConv3d(6, **CONVOLUTIONS[name])
    assert layer.state_dict().keys() == conv.state_dict().keys()
    assert all(torch.equal(parameter, conv.state_dict()[key]) for key, parameter in layer.state_dict().items())


def test_half_the_kernel_is_the_padding_if_none_is_given() -> None:
    assert DepthwiseConv3d(4, (5, 1, 2)).padding == (2, 0, 1)


def test_on_tokens_with_and_without_the_residual() -> None:
    layer, tokens = DepthwiseConv3d(6, 3), torch.randn(2, *GRID, 6)
    expected = layer(tokens.movedim(-1, 1)).movedim(1, -1)
    assert torch.equal(layer.tokens(tokens), expected)
    torch.testing.assert_close(layer.tokens(tokens, residual=True), tokens + expected)


@every_convolution
def test_of_a_convolution_shares_its_parameters(name: str) -> None:
    conv = plain(**CONVOLUTIONS[name]).eval()
    conv.weight.requires_grad_(False)
    layer = DepthwiseConv3d.of(conv)
    assert (layer.weight, layer.bias) == (conv.weight, conv.bias)
    assert not layer.weight.requires_grad
    assert not layer.training
    x = torch.randn(2, 6, *GRID)
    torch.testing.assert_close(layer(x), conv(x))
    assert f"kernel_size={conv.kernel_size}, stride={conv.stride}, padding={conv.padding}" in repr(layer)


@pytest.mark.parametrize(("padding", "kernel"), [("same", (5, 1, 3)), ("valid", (2, 3, 1))])
def test_of_a_convolution_with_a_named_padding(padding: str, kernel: tuple[int, int, int]) -> None:
    conv, x = plain(kernel_size=kernel, padding=padding), torch.randn(2, 6, *GRID)
    torch.testing.assert_close(DepthwiseConv3d.of(conv)(x), conv(x))


@pytest.mark.parametrize(
    ("conv", "error", "message"),
    [
        (nn.Conv2d(4, 4, 3, groups=4), TypeError, "conv must be an nn.Conv3d, got Conv2d"),
        (
            nn.Conv3d(4, 4, 3),
            ValueError,
            r"conv must have as many groups as input and output channels, got \(4, 4, 1\)",
        ),
        (nn.Conv3d(4, 8, 3, groups=4), ValueError, r"got \(4, 8, 4\)"),
        (
            plain(kernel_size=3, dilation=(1, 2, 2)),
            ValueError,
            r"conv must pad with zeros and have dilation 1, got 'zeros' and \(1, 2, 2\)",
        ),
        (plain(kernel_size=3, padding_mode="replicate"), ValueError, "conv must pad with zeros .* got 'replicate'"),
        (
            plain(kernel_size=(3, 2, 3), padding="same"),
            ValueError,
            r'padding="same" of an even kernel is not symmetric, got kernel_size \(3, 2, 3\)',
        ),
    ],
    ids=["2d", "dense", "wider", "dilated", "replicating", "same-even"],
)
def test_of_refuses_what_it_cannot_do(conv: nn.Module, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DepthwiseConv3d.of(conv)


def test_refuses_what_is_no_volume() -> None:
    layer = DepthwiseConv3d(6, 3)
    with pytest.raises(ValueError, match=r"x must be a tensor \(B, C, T, H, W\), got shape \(6, 4, 5, 6\)"):
        layer(torch.randn(6, *GRID))
    with pytest.raises(ValueError, match=r"x must be a tensor \(B, C, T, H, W\), got list"):
        layer([1.0])
    with pytest.raises(ValueError, match="kernel_size must be an int or three ints"):
        DepthwiseConv3d(6, 0)


class Operations(TorchDispatchMode):
    """Names of what was called, views left out."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not function.is_view:
            self.names.append(function.name())
        return function(*args, **(kwargs or {}))


@pytest.mark.requires_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_volume_with_channels_last_is_not_copied(dtype: torch.dtype) -> None:
    """Nor is the gradient, if it comes in that layout."""
    layer = DepthwiseConv3d(6, 3).to(dtype)
    x = torch.randn(2, 6, *GRID, dtype=dtype).to(memory_format=torch.channels_last_3d).requires_grad_()
    grad = torch.randn_like(x)
    assert grad.is_contiguous(memory_format=torch.channels_last_3d)
    with Operations() as operations, use_backend("native"):
        out = layer(x)
        grads = torch.autograd.grad(out, [x, *layer.parameters()], grad)
    assert operations.names == ["vtfast::depthwise_conv3d", "vtfast::depthwise_conv3d_backward"]
    assert grads[0].is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.requires_native
def test_a_network_that_takes_it_in_place_of_its_convolutions_trains_to_the_same() -> None:
    """With hooks, a scheduler's frozen layer, and a norm between that keeps the layout."""

    def network() -> nn.Sequential:
        torch.manual_seed(0)
        layers = [plain(8, kernel_size=5, padding=2), nn.BatchNorm3d(8), nn.GELU(), plain(8, kernel_size=3, padding=1)]
        return nn.Sequential(*layers).double()

    theirs, ours = network(), network()
    for i in (0, 3):
        ours[i] = DepthwiseConv3d.of(ours[i])
    seen: list[torch.Size] = []
    ours[3].register_forward_hook(lambda module, args, out: seen.append(out.shape))
    x = torch.randn(2, 8, *GRID, dtype=torch.float64).to(memory_format=torch.channels_last_3d)

    def train(model: nn.Module) -> list[Tensor]:
        model[0].weight.requires_grad_(False)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        return list(model.state_dict().values())

    torch.testing.assert_close(train(ours), train(theirs))
    assert seen == [x.shape] * 3
