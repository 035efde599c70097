"""The perceptrons, plain and gated, by slices of tokens against two linear layers and a GELU."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from oracles import randomise
from tolerance import BACKWARD, FORWARD, assert_as_accurate
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vtfast import use_backend
from vtfast.layers import Geglu, Mlp
from vtfast.layers import geglu as geglu_module
from vtfast.layers import linear as linear_module
from vtfast.layers import mlp as mlp_module

Layer = Mlp | Geglu


class QuickMlp(Mlp):
    """With CLIP's activation."""

    def __init__(self, dim: int, hidden_dim: int, dropout: float = 0.0) -> None:
        super().__init__(dim, hidden_dim, dropout, activation="quick_gelu")


DTYPES = (torch.float32, torch.bfloat16, torch.float64)
# More tokens than two slices hold, and no multiple of one.
TOKENS = 2 * max(2048, 1024 * torch.get_num_threads()) + 3

both = pytest.mark.parametrize("kind", [Mlp, Geglu])
every = pytest.mark.parametrize("kind", [Mlp, QuickMlp, Geglu])


def plain(layer: Layer, x: Tensor, residual: Tensor | None) -> Tensor:
    hidden = layer.fc1(x)
    if isinstance(layer, Geglu):
        value, gate = hidden.chunk(2, dim=-1)
        hidden = value * F.gelu(gate)
    else:
        hidden = F.gelu(hidden) if layer.activation == "gelu" else hidden * torch.sigmoid(1.702 * hidden)
    out = layer.fc2(hidden)
    return out if residual is None else out + residual


def by_slices(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which of the sliced forms run from here on."""
    calls: list[str] = []

    def noted(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *arguments: calls.append(name) or function(*arguments)

    for module, inference, training in (
        (mlp_module, "_mlp", mlp_module._TrainedMlp),
        (geglu_module, "_geglu", geglu_module._TrainedGeglu),
    ):
        monkeypatch.setattr(module, inference, noted("inference", getattr(module, inference)))
        monkeypatch.setattr(training, "apply", noted("training", training.apply))
    return calls


@every
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 8), (1, 1, TOKENS, 8)], ids=["one-slice", "slices"])
@pytest.mark.parametrize("with_residual", [False, True], ids=["alone", "residual"])
def test_results_and_gradients(
    kind: type[Layer], shape: tuple[int, ...], with_residual: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = randomise(kind(8, 12), seed=0).to(dtype)
    x = torch.randn(shape).to(dtype).requires_grad_()
    residual = torch.randn(shape).to(dtype).requires_grad_() if with_residual else None
    weights = torch.randn(shape).to(dtype)
    calls = by_slices(monkeypatch)

    def evaluate(function: Callable[..., Tensor], dtype: torch.dtype) -> list[Tensor]:
        given = [t if t is None else t.detach().to(dtype).requires_grad_() for t in (x, residual)]
        inputs = [t for t in (*given, *layer.to(dtype).parameters()) if t is not None]
        out = function(layer, *given)
        return [out.detach(), *torch.autograd.grad((out * weights.to(dtype)).sum(), inputs)]

    expected, exact = evaluate(plain, dtype), evaluate(plain, torch.float64)
    actual = evaluate(kind.__call__, dtype)
    fused = dtype in linear_module._FUSED_TYPES
    assert calls == (["training"] if fused else [])
    for index, (a, e, x64) in enumerate(zip(actual, expected, exact, strict=True)):
        factor = BACKWARD if index else FORWARD
        assert_as_accurate(a, e, x64, factor=factor, terms=x64.abs().max().item() + 1, name=f"tensor {index}")
    with torch.no_grad():
        out = layer(x, residual)
    assert calls == (["training", "inference"] if fused else [])
    assert_as_accurate(out, expected[0], exact[0], factor=FORWARD, terms=exact[0].abs().max().item() + 1, name="out")


@pytest.mark.parametrize("tokens", [6, TOKENS])
def test_other_channels_of_the_output(tokens: int) -> None:
    layer = randomise(Mlp(8, 12, dim_out=5), seed=0)
    x, residual = torch.randn(tokens, 8, requires_grad=True), torch.randn(tokens, 5, requires_grad=True)
    actual, expected = layer(x, residual), plain(layer, x, residual)
    torch.testing.assert_close(actual, expected)
    inputs, weights = [x, residual, *layer.parameters()], torch.randn(tokens, 5)
    gradients, wanted = (torch.autograd.grad((out * weights).sum(), inputs) for out in (actual, expected))
    torch.testing.assert_close(gradients, wanted, rtol=1e-4, atol=1e-3)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, residual), expected)


@both
def test_the_backward_is_the_same_from_run_to_run(kind: type[Layer]) -> None:
    layer, x = randomise(kind(8, 12), seed=0), torch.randn(TOKENS, 8)
    first, second = (torch.autograd.grad(layer(x).square().sum(), list(layer.parameters())) for _ in range(2))
    assert all(map(torch.equal, first, second))


@both
def test_takes_expanded_gradients(kind: type[Layer]) -> None:
    layer, x = randomise(kind(8, 12), seed=0), torch.randn(5, 8)
    torch.testing.assert_close(
        torch.autograd.grad(layer(x).sum(), list(layer.parameters())),
        torch.autograd.grad(plain(layer, x, None).sum(), list(layer.parameters())),
    )


@pytest.mark.parametrize(("kind", "most", "plainly"), [(Mlp, 1.2, 2.0), (QuickMlp, 1.2, 2.0), (Geglu, 2.3, 4.0)])
def test_keeps_half_of_what_plain_training_keeps(kind: type[Layer], most: float, plainly: float) -> None:
    def kept(run: Callable[[Tensor], Tensor]) -> int:
        sizes: dict[int, int] = {}
        pack: Callable[[Tensor], Tensor] = lambda t: sizes.update({t.data_ptr(): t.numel()}) or t  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            run(x)
        return sum(sizes.values())

    layer, x = kind(8, 64), torch.randn(TOKENS, 8)
    tokens = TOKENS * 64
    assert kept(layer) < most * tokens
    assert kept(lambda x: plain(layer, x, None)) > plainly * tokens


@both
@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing(kind: type[Layer], reentrant: bool) -> None:
    layer, x = randomise(kind(8, 12), seed=0), torch.randn(5, 8, requires_grad=True)
    gradient = torch.autograd.grad(layer(x).square().sum(), x)[0]
    checkpoint(layer, x, use_reentrant=reentrant).square().sum().backward()
    # A reentrant checkpoint runs first without gradients, in the other of the two forms.
    torch.testing.assert_close(x.grad, gradient)


@both
def test_a_second_derivative_is_an_error(kind: type[Layer]) -> None:
    layer, x = kind(8, 12), torch.randn(5, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@every
def test_the_reference_has_second_derivatives(kind: type[Layer]) -> None:
    layer, x = kind(4, 6).double(), torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    with use_backend("reference"):
        assert torch.autograd.gradgradcheck(layer, x)


@both
def test_frozen_layers_hooks_and_function_transforms_run_plain(
    kind: type[Layer], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x = randomise(kind(8, 12), seed=0), torch.randn(5, 8, requires_grad=True)
    calls = by_slices(monkeypatch)
    expected = torch.autograd.grad(plain(layer, x, None).sum(), x)[0]
    torch.testing.assert_close(torch.func.grad(lambda x: layer(x).sum())(x), expected)
    layer.fc1.weight.requires_grad_(False)
    torch.testing.assert_close(torch.autograd.grad(layer(x).sum(), x)[0], expected)
    layer.requires_grad_(True).fc2.register_forward_hook(lambda _module, _inputs, out: 2 * out)
    torch.testing.assert_close(torch.autograd.grad(layer(x).sum(), x)[0], 2 * expected)
    assert not calls


def test_dropout_acts_in_training_only() -> None:
    mlp, x = Mlp(8, 12, dropout=0.5), torch.randn(2, 3, 8)
    assert (mlp(x) == 0).any()
    residual = torch.ones(2, 3, 8)
    assert (mlp(x, residual) == 1).any()
    assert torch.equal(mlp.eval()(x), mlp(x))


def test_dropout_of_the_hidden_layer_alone() -> None:
    mlp, x = randomise(Mlp(8, 12, dropout=1.0, dropout_out=0.0), seed=0), torch.randn(2, 3, 8)
    assert torch.equal(mlp(x), mlp.fc2.bias.expand(2, 3, 8))


def test_rejects_activation() -> None:
    with pytest.raises(ValueError, match="activation must be one of gelu, quick_gelu, got 'relu'"):
        Mlp(8, 12, activation="relu")


def test_dropout_acts_on_the_gated_hidden_layer_in_training_only() -> None:
    layer, x = randomise(Geglu(8, 1, dropout=0.5), seed=0), torch.randn(4, 5, 8)
    dropped = (layer(x) == layer.fc2.bias).all(dim=-1)
    assert dropped.any()
    assert not dropped.all()
    torch.testing.assert_close(layer.eval()(x), plain(layer, x, None))
