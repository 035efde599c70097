"""Attention of a few queries, whose keys and values are never computed, against the plain form."""

import pytest
import torch
import torch.nn.functional as F
from oracles import randomise
from target import DEVICE
from tolerance import BACKWARD, FORWARD, assert_as_accurate
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vtfast.layers import QueryAttention


def plain(
    layer: QueryAttention,
    query: Tensor,  # [B, Q, C]
    context: Tensor,  # [B, N, C]
) -> Tensor:  # [B, Q, C]
    weights, biases = layer.qkv.weight.chunk(3), layer.qkv.bias.chunk(3)
    projected = [F.linear(x, w, b) for x, w, b in zip((query, context, context), weights, biases, strict=True)]
    q, k, v = (x.unflatten(-1, (layer.num_heads, -1)).transpose(1, 2) for x in projected)
    shares = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)
    return layer.proj((shares @ v).transpose(1, 2).flatten(2))


def evaluate(layer: QueryAttention, inputs: list[Tensor], is_plain: bool) -> dict[str, Tensor]:
    """Result and gradients."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    query, *parts = leaves
    out = plain(layer, query, torch.cat(parts, dim=1)) if is_plain else layer(query, *parts)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    names = ("query", *(f"context {i}" for i in range(len(parts))), *(name for name, _ in layer.named_parameters()))
    gradients = torch.autograd.grad((out * weights).sum(), (*leaves, *layer.parameters()))
    return {"out": out.detach(), **dict(zip(names, gradients, strict=True))}


@pytest.mark.every_device
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("queries", "parts"), [(1, (60,)), (1, (48, 4, 1)), (3, (60,))], ids=str)
def test_results_and_gradients_are_those_of_the_plain_form(
    queries: int, parts: tuple[int, ...], dtype: torch.dtype
) -> None:
    """With keys that all scores share a large part of, which must not spoil them."""
    layer = randomise(QueryAttention(24, 4), seed=0).to(DEVICE, dtype)
    inputs = [torch.randn(2, n, 24).to(DEVICE, dtype) for n in (queries, *parts)]
    actual, expected = (evaluate(layer, inputs, is_plain) for is_plain in (False, True))
    exact = evaluate(layer.double(), [x.double() for x in inputs], is_plain=True)
    if dtype == torch.float64:
        torch.testing.assert_close(actual, expected)
    for name, value in actual.items():
        largest = exact[name].abs().max().item() + 1
        factor = FORWARD if name == "out" else BACKWARD
        assert_as_accurate(value, expected[name], exact[name], factor=factor, terms=10 * largest, name=name)


def test_the_bias_of_the_keys_has_a_gradient_of_zero() -> None:
    layer = randomise(QueryAttention(24, 4), seed=0)
    layer(torch.randn(2, 1, 24), torch.randn(2, 9, 24)).square().sum().backward()
    gradients = layer.qkv.bias.grad.chunk(3)
    assert [bool(gradient.any()) for gradient in gradients] == [True, False, True]


def test_work_of_a_token_does_not_grow_with_the_square_of_the_channels() -> None:
    layer = QueryAttention(64, 4)
    counts = []
    for tokens in (100, 1100):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            layer(torch.randn(1, 1, 64), torch.randn(1, tokens, 64))
        counts.append(counter.get_total_flops())
    assert counts[1] - counts[0] == 1000 * 2 * (2 * 4 * 64)


def test_empty_batch() -> None:
    assert QueryAttention(24, 4)(torch.empty(0, 1, 24), torch.empty(0, 9, 24)).shape == (0, 1, 24)


def test_rejects_heads() -> None:
    with pytest.raises(ValueError, match="num_heads must divide dim = 24, got 5"):
        QueryAttention(24, 5)
