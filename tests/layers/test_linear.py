"""The fused linear layer against the plain one, and everything that must see the plain one."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracles import randomise
from tolerance import FORWARD, assert_as_accurate
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vtfast import use_backend
from vtfast.layers import linear as linear_module
from vtfast.layers.linear import can_fuse, linear

FUSED_TYPES = sorted(linear_module._FUSED_TYPES, key=str)


@pytest.fixture
def fused_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The activation of every call of the fused operation."""
    calls: list[str] = []
    fused = linear_module.fused_linear

    def counted(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str, residual: Tensor | None) -> Tensor:
        calls.append(activation)
        return fused(x, weight, bias, activation, residual)

    monkeypatch.setattr(linear_module, "fused_linear", counted)
    return calls


requires_fusion = pytest.mark.skipif(not linear_module._AVAILABLE, reason="this torch has no fused linear operation")


@requires_fusion
@pytest.mark.parametrize("dtype", FUSED_TYPES, ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize(("activation", "residual"), [("none", False), ("gelu", False), ("none", True)])
@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (2, 3, 5, 7, 16), (1031, 96)], ids=str)
def test_is_as_accurate_as_the_plain_layer(
    shape: tuple[int, ...], activation: str, residual: bool, bias: bool, dtype: torch.dtype, fused_calls: list[str]
) -> None:
    layer = randomise(nn.Linear(shape[-1], 11, bias=bias), seed=0).to(dtype)
    x = torch.randn(shape).to(dtype)
    added = torch.randn(*shape[:-1], 11).to(dtype) if residual else None

    def plain(x: Tensor, layer: nn.Linear, added: Tensor | None) -> Tensor:
        out = layer(x)
        out = F.gelu(out) if activation == "gelu" else out
        return out if added is None else out + added

    with torch.no_grad():
        fused = linear(x, layer, activation=activation, residual=added)
        expected = plain(x, layer, added)
        exact = plain(x.double(), layer.double(), None if added is None else added.double())
    assert fused_calls == [activation]
    assert_as_accurate(fused, expected, exact, factor=FORWARD, terms=exact.abs().max().item() + 1, name="result")
    assert fused.is_contiguous()


@requires_fusion
def test_an_activation_with_a_residual_is_plain(fused_calls: list[str]) -> None:
    layer, x = nn.Linear(6, 6), torch.randn(4, 6)
    with torch.no_grad():
        torch.testing.assert_close(linear(x, layer, activation="gelu", residual=x), F.gelu(layer(x)) + x)
    assert not fused_calls


def test_dropout_leaves_the_residual(fused_calls: list[str]) -> None:
    layer, x, residual = nn.Linear(6, 40), torch.randn(10, 6), torch.randn(10, 40)
    with torch.no_grad():
        out = linear(x, layer, dropout=0.5, residual=residual)
    dropped = out == residual
    assert 0.3 < dropped.float().mean() < 0.7
    torch.testing.assert_close(out[~dropped], (2 * layer(x) + residual)[~dropped])
    assert not fused_calls


def test_never_modifies_its_arguments() -> None:
    layer, x, residual = nn.Linear(6, 6), torch.randn(4, 6), torch.randn(4, 6)
    x_before, residual_before = x.clone(), residual.clone()
    for mode in (torch.no_grad(), nullcontext()):
        with mode:
            linear(x, layer, residual=residual)
    assert torch.equal(x, x_before)
    assert torch.equal(residual, residual_before)


@requires_fusion
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("trained", ["input", "layer", "residual", "all"])
def test_gradients_are_those_of_the_plain_layer(trained: str, bias: bool, fused_calls: list[str]) -> None:
    layer = nn.Linear(6, 5, bias=bias).requires_grad_(trained in ("layer", "all"))
    x = torch.randn(2, 4, 6, requires_grad=trained in ("input", "all"))
    residual = torch.randn(2, 4, 5, requires_grad=trained in ("residual", "all"))
    wanted = [tensor for tensor in (x, residual, *layer.parameters()) if tensor.requires_grad]
    out, plain = linear(x, layer, residual=residual), layer(x) + residual
    d_out = torch.randn(5, 4, 2).transpose(0, 2)  # not contiguous
    torch.testing.assert_close(out, plain)
    torch.testing.assert_close(torch.autograd.grad(out, wanted, d_out), torch.autograd.grad(plain, wanted, d_out))
    assert fused_calls == ["none"] * (2 if x.requires_grad else 1)


@requires_fusion
def test_a_second_derivative_is_an_error() -> None:
    x = torch.randn(4, 6, requires_grad=True)
    (d_x,) = torch.autograd.grad(linear(x, nn.Linear(6, 5)).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        d_x.sum().backward()


@requires_fusion
def test_fuses_where_nothing_requires_a_gradient(fused_calls: list[str]) -> None:
    layer = nn.Linear(6, 5).requires_grad_(False)
    linear(torch.randn(4, 6), layer)
    assert fused_calls == ["none"]


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def hooked(layer: nn.Linear) -> nn.Linear:
    layer.register_forward_hook(lambda _module, _inputs, out: 2 * out)
    return layer


def patched(layer: nn.Linear) -> nn.Linear:
    forward = layer.forward
    layer.forward = lambda x: 2 * forward(x)  # type: ignore[method-assign]
    return layer


@pytest.mark.parametrize(
    "layer",
    [Doubled(6, 5), hooked(nn.Linear(6, 5)), patched(nn.Linear(6, 5))],
    ids=["subclass", "hook", "patched"],
)
def test_a_changed_layer_keeps_its_meaning(layer: nn.Linear) -> None:
    x = torch.randn(4, 6)
    with torch.no_grad():
        torch.testing.assert_close(linear(x, layer), 2 * F.linear(x, layer.weight, layer.bias))


class Named(Tensor):
    """A subclass that changes nothing."""


X = torch.randn(4, 6)


@pytest.mark.parametrize(
    ("x", "dtype"),
    [
        (X.double(), torch.float64),
        (X.half(), torch.float16),
        (torch.randn(6, 4).t(), torch.float32),
        (X[:, :1].expand(4, 6), torch.float32),
        (X[:0], torch.float32),
        (X.as_subclass(Named), torch.float32),
        (X.to("meta"), torch.float32),
    ],
    ids=["float64", "float16", "transposed", "expanded", "empty", "subclass", "meta"],
)
def test_other_inputs_run_plain(x: Tensor, dtype: torch.dtype) -> None:
    layer = nn.Linear(6, 5, device=x.device, dtype=dtype)
    assert not can_fuse(x, layer)
    with torch.no_grad():
        torch.testing.assert_close(linear(x, layer), layer(x))


def test_a_broadcast_residual_runs_plain() -> None:
    layer, residual = nn.Linear(6, 5), torch.randn(1, 5)
    with torch.no_grad():
        torch.testing.assert_close(linear(X, layer, residual=residual), layer(X) + residual)


@requires_fusion
def test_other_dtypes_of_residual_and_autocast_run_plain(fused_calls: list[str]) -> None:
    layer, residual = nn.Linear(6, 5), torch.randn(4, 5, dtype=torch.float64)
    with torch.no_grad():
        assert linear(X, layer, residual=residual).dtype == torch.float64
        with torch.autocast("cpu", torch.bfloat16):
            assert linear(X, layer).dtype == torch.bfloat16
    with pytest.raises(RuntimeError, match="dtype"), torch.no_grad():
        linear(X.bfloat16(), layer)
    assert not fused_calls


def traced(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.trace(function, x, check_trace=False)(x)


def tangent(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.autograd.forward_ad.dual_level():
        return torch.autograd.forward_ad.unpack_dual(function(torch.autograd.forward_ad.make_dual(x, x))).tangent


def counted(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with FlopCounterMode(display=False) as counter:
        out = function(x)
    assert counter.get_total_flops() == 2 * 4 * 6 * 5
    return out


def on_reference(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with use_backend("reference"):
        return function(x)


@requires_fusion
@pytest.mark.parametrize(
    ("transform", "factor"),
    [
        (lambda function, x: torch.vmap(function)(x), 1),
        (lambda function, x: torch.compile(function, backend="eager", fullgraph=True)(x), 1),
        (traced, 1),
        (tangent, 0),
        (counted, 1),
        (on_reference, 1),
    ],
    ids=["vmap", "compile", "trace", "forward-mode", "flop-counter", "reference"],
)
def test_whatever_looks_inside_sees_the_plain_layer(
    transform: Callable[..., Tensor], factor: int, fused_calls: list[Any]
) -> None:
    layer = nn.Linear(6, 5).requires_grad_(False)
    with torch.no_grad():
        out = transform(lambda x: linear(x, layer), X)
        torch.testing.assert_close(out, F.linear(X, layer.weight, factor * layer.bias))
    assert not fused_calls


def test_rejects_activation() -> None:
    with pytest.raises(ValueError, match="activation must be none or gelu, got 'relu'"):
        linear(X, nn.Linear(6, 5), activation="relu")
