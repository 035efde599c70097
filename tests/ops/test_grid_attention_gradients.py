"""Gradients of grid attention beyond their values: numerical check, layouts, repeatability, memory."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from attention_check import Triple, evaluate, every_dtype, make_problem, native, needs_float64
from target import DEVICE, EMULATED, in_several_orders, thinned
from torch import Tensor

from vtfast import ops

pytestmark = [pytest.mark.requires_native, pytest.mark.every_device]

GRID = (5, 4, 5) if EMULATED else (5, 7, 11)
CASES: dict[str, dict[str, Any]] = {
    "windows": {"shift": (1, 0, 1)},
    "larger-table": {"bias_window": (2, 3, 3), "bias_order": "window"},
    "dilated": {"dilation": (1, 1, 2), "shift": (0, 1, 3)},
    "smaller-last-groups": {"shift": (1, 0, 1), "pad_keys": False},
    "prefix-keys": {"num_prefix": 2},
    "prefix-global": {"num_prefix": 1, "prefix_queries": "global", "prefix_keys": False},
    "prefix-mean": {"num_prefix": 2, "prefix_queries": "mean", "shift": (1, 1, 0)},
    "masked": {"key_mask": torch.tensor([[True, False, True, True] * 4 + [True] * 2]), "num_prefix": 1},
}


@needs_float64
@pytest.mark.parametrize("case", CASES)
def test_gradcheck(case: str) -> None:
    problem = make_problem((3, 2, 3), (2, 2, 2), batch=1, head_dim=3, dtype=torch.float64, **CASES[case])
    leaves = {name: tensor.requires_grad_() for name, tensor in problem.leaves().items()}

    def attention(*tensors: Tensor) -> Tensor:
        named = dict(zip(leaves, tensors, strict=True))
        return native(**named, key_mask=problem.key_mask, **problem.settings)

    assert torch.autograd.gradcheck(attention, tuple(leaves.values()))


def test_a_second_derivative_is_an_error_and_not_zero() -> None:
    qkv = make_problem((2, 2, 2), (1, 2, 2)).qkv.requires_grad_()
    (grad,) = torch.autograd.grad(
        ops.grid_attention(qkv, (2, 2, 2), num_heads=2, block=(1, 2, 2)).square().sum(), qkv, create_graph=True
    )
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize("wanted", ["qkv", "bias_table", "pad_qkv"])
def test_gradient_of_one_input_alone(wanted: str) -> None:
    problem = make_problem((3, 4, 5), (2, 2, 2))
    expected = evaluate(native, problem)[f"d_{wanted}"]
    leaf = problem.leaves()[wanted].requires_grad_()
    out = native(**problem.leaves(), **problem.settings)
    (grad,) = torch.autograd.grad(out, leaf, problem.grad_out)
    assert torch.equal(grad, expected)


def unaligned(tensor: Tensor) -> Tensor:
    """The same values one element behind an allocation's start, so that no vector of them is aligned."""
    return torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view(tensor.shape)


def strided(tensor: Tensor) -> Tensor:
    """The same values as every second element of a larger tensor, last dimension slowest."""
    larger = torch.stack([tensor, torch.full_like(tensor, float("nan"))], dim=-1)
    return larger.movedim(-2, 0).contiguous().movedim(0, -2)[..., 0]


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {"unaligned": unaligned, "strided": strided}


@every_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_of_the_inputs_does_not_matter(layout: str, dtype: torch.dtype) -> None:
    change = LAYOUTS[layout]
    problem = make_problem((3, 4, 5), (2, 2, 2), num_prefix=1, prefix_queries="mean", dtype=dtype)
    changed = replace(
        problem,
        qkv=change(problem.qkv),
        bias_table=change(problem.bias_table),
        pad_qkv=change(problem.pad_qkv),
        grad_out=change(problem.grad_out),
    )
    torch.testing.assert_close(evaluate(native, changed), evaluate(native, problem), rtol=0, atol=0)


def test_expanded_tokens_and_gradient() -> None:
    problem = make_problem((3, 4, 5), (2, 2, 2), batch=1)
    expanded = replace(
        problem,
        qkv=problem.qkv.expand(3, -1, -1),
        key_mask=torch.rand(60, device=DEVICE).gt(0.3).expand(3, -1),
        grad_out=torch.tensor(0.7, device=DEVICE).expand(3, 60, 16),
    )
    assert expanded.qkv.stride(0) == 0
    assert expanded.grad_out.stride() == (0, 0, 0)
    copied = replace(
        problem,
        qkv=expanded.qkv.contiguous(),
        key_mask=expanded.key_mask.contiguous(),
        grad_out=expanded.grad_out.contiguous(),
    )
    torch.testing.assert_close(evaluate(native, expanded), evaluate(native, copied), rtol=0, atol=0)


def test_both_layouts_of_the_tokens_agree() -> None:
    problem = make_problem((3, 4, 5), (2, 2, 2), shift=(1, 0, 1), key_mask=torch.rand(2, 60) > 0.3)
    volume = replace(
        problem,
        qkv=problem.qkv.unflatten(1, (3, 4, 5)),
        key_mask=problem.key_mask.unflatten(1, (3, 4, 5)),
        grad_out=problem.grad_out.unflatten(1, (3, 4, 5)),
    )
    flat, five = evaluate(native, problem), evaluate(native, volume)
    assert five["out"].shape == (2, 3, 4, 5, 16)
    assert torch.equal(five["out"].flatten(1, 3), flat["out"])
    assert torch.equal(five["d_qkv"].flatten(1, 3), flat["d_qkv"])
    assert torch.equal(five["d_bias_table"], flat["d_bias_table"])


def test_gradients_that_float16_cannot_hold_are_infinite() -> None:
    """A gradient scaler looks for infinities to lower its scale."""
    problem = make_problem((1, 1, 4), (1, 1, 4), dtype=torch.float16, bias=False, pad=False)
    problem.grad_out.fill_(6e4)
    d_v = evaluate(native, problem)["d_qkv"][..., 32:]
    assert (d_v.isfinite() | (d_v == float("inf"))).all()
    assert d_v.isinf().any()


REPEATED = [((2, 3, 4), (1, 1, 2)), ((5, 1, 1), (0, 0, 0)), ((1, 1, 11), (0, 0, 4))]


@every_dtype
@pytest.mark.parametrize("prefix_queries", ["global", "mean"])
@pytest.mark.parametrize(("block", "shift"), thinned(REPEATED, *REPEATED[:2]), ids=str)
def test_bitwise_repeatable_from_run_to_run_and_in_any_order_of_the_work(
    block: Triple, shift: Triple, prefix_queries: str, dtype: torch.dtype
) -> None:
    settings = {"num_prefix": 2, "prefix_queries": prefix_queries, "shift": shift}
    problem = make_problem(GRID, block, dtype=dtype, **settings)
    first = evaluate(native, problem)
    for _ in in_several_orders():
        torch.testing.assert_close(evaluate(native, problem), first, rtol=0, atol=0)


@pytest.mark.parametrize("clip", [0, 1, 2])
def test_a_clip_does_not_depend_on_its_batch(clip: int) -> None:
    problem = make_problem(GRID, (2, 3, 4), batch=3)
    part = slice(clip, clip + 1)
    alone = replace(problem, qkv=problem.qkv[part], grad_out=problem.grad_out[part])
    together, separate = evaluate(native, problem), evaluate(native, alone)
    assert torch.equal(together["out"][part], separate["out"])
    assert torch.equal(together["d_qkv"][part], separate["d_qkv"])


def saved_bytes(tokens: int) -> int:
    """Bytes that autograd keeps for the backward pass of attention among all of `tokens`."""
    qkv = torch.randn(1, tokens, 3 * 32, device=DEVICE, requires_grad=True)
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        native(qkv=qkv, grid=(tokens, 1, 1), num_heads=2, block=(tokens, 1, 1))
    return sum(sizes)


def test_what_is_kept_for_the_backward_grows_with_tokens() -> None:
    per_token = (3 * 32 + 2) * 4  # qkv, and a logsumexp for each head
    assert saved_bytes(100) == 100 * per_token
    assert saved_bytes(400) == 400 * per_token
