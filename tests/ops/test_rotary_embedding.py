"""Rotary embedding: the kernels against the reference, whose own oracle is tests/reference/test_rotary_embedding.py."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from attention_check import every_dtype, needs_float64
from rotary_check import Problem, check, evaluate, make_problem, native
from target import CPU_KERNELS, DEVICE, EMULATED, in_several_orders, thinned
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

from vtfast import ops

Triple = tuple[int, int, int]
pytestmark = [pytest.mark.requires_native, pytest.mark.every_device]

# (head_dim, R); kernels for GPUs take head_dim in multiples of 8.
HEAD_DIMS = [(8, 2), (8, 8), (24, 20), (64, 64), (136, 70)] + (
    [(2, 2), (5, 4), (7, 6), (33, 32)] if CPU_KERNELS else []
)


@every_dtype
@pytest.mark.parametrize("num_prefix", [0, 1, 2])
@pytest.mark.parametrize(
    "axes",
    thinned(product([True, False], repeat=3), (True, True, True), (True, False, False), (False, True, True)),
    ids=str,
)
def test_tables_along_every_axis(axes: tuple[bool, bool, bool], num_prefix: int, dtype: torch.dtype) -> None:
    check(make_problem(axes=axes, num_prefix=num_prefix, dtype=dtype))


@every_dtype
@pytest.mark.parametrize(("head_dim", "rotated"), HEAD_DIMS)
def test_head_dims(head_dim: int, rotated: int, dtype: torch.dtype) -> None:
    check(make_problem((2, 2, 1), head_dim=head_dim, rotated=rotated, num_heads=3, dtype=dtype))


@every_dtype
@pytest.mark.parametrize(
    ("grid", "channels"), [((1, 1, 1), 8), ((3, 5, 7), 64), ((1, 2, 1), 2048)], ids=["one", "blocks", "wide"]
)
def test_sizes(grid: Triple, channels: int, dtype: torch.dtype) -> None:
    check(make_problem(grid, num_heads=channels // 8, dtype=dtype))


@every_dtype
def test_five_dimensions(dtype: torch.dtype) -> None:
    problem = make_problem(num_prefix=0, dtype=dtype)
    grid = problem.settings["grid"]
    unflattened = replace(problem, qkv=problem.qkv.unflatten(1, grid), grad_out=problem.grad_out.unflatten(1, grid))
    check(unflattened)
    out, d_qkv = evaluate(native, unflattened)
    assert out.shape == d_qkv.shape == (2, *grid, 48)
    assert torch.equal(out.flatten(1, 3), evaluate(native, problem)[0])


@every_dtype
def test_what_is_not_finite_stays_in_its_pair(dtype: torch.dtype) -> None:
    problem = make_problem(dtype=dtype)
    problem.qkv[0, 3, 2], problem.qkv[1, 4, 17], problem.qkv[1, 0, 5] = float("nan"), float("inf"), float("nan")
    spoilt = native(problem.qkv, cos=problem.cos, sin=problem.sin, **problem.settings)
    wrong = (~spoilt.isfinite()).nonzero().tolist()
    assert wrong == [[0, 3, 2], [0, 3, 3], [1, 0, 5], [1, 4, 16], [1, 4, 17]]


def test_strided_expanded_and_unaligned_tensors() -> None:
    problem = make_problem()
    expected = evaluate(native, problem)

    def strided(x: Tensor) -> Tensor:
        return x.transpose(0, -1).contiguous().transpose(0, -1)

    def unaligned(x: Tensor) -> Tensor:
        return torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)

    for change in (strided, unaligned):
        tensors = (problem.qkv, problem.cos, problem.sin, problem.grad_out)
        changed = Problem(*map(change, tensors), problem.settings)
        assert all(map(torch.equal, evaluate(native, changed), expected))
    still = replace(problem, qkv=problem.qkv[:1].expand(2, -1, -1), grad_out=problem.grad_out[:1].expand(2, -1, -1))
    out, d_qkv = evaluate(native, still)
    assert torch.equal(out[0], expected[0][0])
    assert torch.equal(out[1], out[0])
    assert torch.equal(d_qkv[1], expected[1][0])
    whole = replace(problem, cos=problem.cos[:1].expand(2, -1, -1, -1), sin=problem.sin[:1].expand(2, -1, -1, -1))
    broadcast = replace(problem, cos=problem.cos[:1], sin=problem.sin[:1])
    assert all(map(torch.equal, evaluate(native, whole), evaluate(native, broadcast)))


@every_dtype
def test_empty_batch(dtype: torch.dtype) -> None:
    check(make_problem(batch=0, dtype=dtype))


def test_bitwise_the_same_in_every_order() -> None:
    problem = make_problem((3, 5, 7), num_heads=8)
    first, *others = [evaluate(native, problem) for _ in in_several_orders()]
    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))


@needs_float64
def test_gradcheck() -> None:
    problem = make_problem((1, 2, 1), head_dim=5, rotated=4, num_heads=1, batch=1, dtype=torch.float64)

    def rotate(qkv: Tensor) -> Tensor:
        return native(qkv, cos=problem.cos, sin=problem.sin, **problem.settings)

    qkv = problem.qkv.requires_grad_()
    assert torch.autograd.gradcheck(rotate, qkv)
    assert torch.autograd.gradgradcheck(rotate, qkv)


def test_tables_in_any_dtype() -> None:
    problem = make_problem(dtype=torch.bfloat16)
    rounded = replace(problem, cos=problem.cos.bfloat16(), sin=problem.sin.bfloat16())
    exact = replace(problem, cos=rounded.cos.float(), sin=rounded.sin.float())
    assert all(map(torch.equal, evaluate(native, rounded), evaluate(native, exact)))


def test_the_reference_gives_tables_a_gradient_and_the_kernels_refuse() -> None:
    problem = make_problem()
    arguments = {"cos": problem.cos.requires_grad_(), "sin": problem.sin, **problem.settings}
    with pytest.raises(RuntimeError, match=r"no compiled kernel for rotary_embedding: .* give cos and sin no gradient"):
        native(problem.qkv, **arguments)
    with torch.no_grad():
        expected = native(problem.qkv, **arguments)
    with pytest.warns(UserWarning, match="cos and sin no gradient"):
        out = ops.rotary_embedding(problem.qkv, **arguments)
    torch.testing.assert_close(out, expected)
    assert torch.autograd.grad(out.square().sum(), problem.cos)[0].abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_follows_the_users_dtype(dtype: torch.dtype) -> None:
    problem = make_problem()
    with torch.autocast(DEVICE.type, dtype):
        out, d_qkv = evaluate(native, problem)
    assert out.dtype == dtype
    assert d_qkv.dtype == torch.float32
    assert torch.equal(out, evaluate(native, problem, dtype)[0])


@pytest.mark.parametrize("requires_grad", [False, True], ids=["inference", "training"])
def test_opcheck(requires_grad: bool) -> None:
    problem = make_problem(dtype=torch.bfloat16)
    tensors = (problem.qkv.requires_grad_(requires_grad), problem.cos, problem.sin)
    for transpose in (False, True):
        arguments = (*tensors, problem.settings["grid"], 2, 1, transpose)
        torch.library.opcheck(torch.ops.vtfast.rotary_embedding.default, arguments)


@pytest.mark.skipif(EMULATED, reason="the compiler sees the same operator as on the CPU")
@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_once_for_all_sizes() -> None:
    def rotate(qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return ops.rotary_embedding(qkv, qkv.shape[1:4], cos, sin, num_heads=2)

    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(rotate, backend=counter, fullgraph=True, dynamic=True)
    for size in [(2, 3, 4, 5), (3, 4, 5, 6), (4, 5, 6, 7)]:
        qkv = torch.randn(*size, 48, device=DEVICE, requires_grad=True)
        cos, sin = (torch.randn(size[1], 1, 1, 8, device=DEVICE) for _ in range(2))
        results = []
        for function in (rotate, compiled):
            out = function(qkv, cos, sin)
            results.append((out, *torch.autograd.grad(out.square().sum(), qkv)))
        torch.testing.assert_close(results[1], results[0])
    assert counter.frame_count == 1


@pytest.mark.parametrize("in_dim", [0, 2])
def test_vmap_over_the_tokens(in_dim: int) -> None:
    problem = make_problem()
    stacked = torch.randn(3, *problem.qkv.shape, device=DEVICE)

    def rotate(qkv: Tensor, cos: Tensor = problem.cos) -> Tensor:
        return native(qkv, cos=cos, sin=problem.sin, **problem.settings)

    mapped = torch.vmap(rotate, in_dims=in_dim)(stacked.movedim(0, in_dim))
    assert torch.equal(mapped, torch.stack([rotate(qkv) for qkv in stacked]))
    with pytest.raises(NotImplementedError, match="vmap over cos or sin is not supported"):
        torch.vmap(rotate, in_dims=(None, 0))(problem.qkv, torch.stack([problem.cos] * 2))


def test_activation_checkpointing() -> None:
    problem = make_problem()

    def checkpointed(*arguments: Any, **settings: Any) -> Tensor:
        return checkpoint(native, *arguments, use_reentrant=False, **settings)

    assert all(map(torch.equal, evaluate(checkpointed, problem), evaluate(native, problem)))


MISTAKES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "qkv-type": ({"qkv": [1.0]}, TypeError, "qkv must be a tensor, got list"),
    "qkv-dtype": ({"qkv": torch.zeros(2, 25, 48, dtype=torch.int32)}, TypeError, "qkv must be one of float32"),
    "qkv-tokens": ({"qkv": torch.zeros(2, 24, 48)}, ValueError, r"qkv must be \[B, 25, 3\*C\]"),
    "grid": ({"grid": (2, 3)}, TypeError, "grid must be an int or three ints"),
    "num_heads": ({"num_heads": 3}, ValueError, "num_heads must divide C"),
    "num_prefix": ({"num_prefix": -1}, ValueError, "num_prefix must be an int of at least 0, got -1"),
    "cos-type": ({"cos": 1.0}, TypeError, "cos must be a tensor, got float"),
    "cos-rank": ({"cos": torch.zeros(24, 8)}, ValueError, r"cos must be \[T or 1, .*, got shape \(24, 8\)"),
    "cos-size": (
        {"cos": torch.zeros(2, 1, 2, 8)},
        ValueError,
        r"\(T, H, W\) = \(2, 3, 4\) .* got shape \(2, 1, 2, 8\)",
    ),
    "cos-odd": ({"cos": torch.zeros(2, 1, 1, 7)}, ValueError, r"R even, 2 to head_dim = 8, got shape \(2, 1, 1, 7\)"),
    "cos-wide": ({"cos": torch.zeros(2, 1, 1, 10)}, ValueError, "R even, 2 to head_dim = 8"),
    "cos-none": ({"cos": torch.zeros(2, 1, 1, 0)}, ValueError, "R even, 2 to head_dim = 8"),
    "sin-shape": (
        {"sin": torch.zeros(1, 1, 1, 8)},
        ValueError,
        r"sin must have the shape of cos, \(2, 3, 4, 8\), got \(1, 1, 1, 8\)",
    ),
    "sin-dtype": ({"sin": torch.zeros(2, 3, 4, 8, dtype=torch.bool)}, TypeError, "sin must be one of float32"),
    "sin-device": ({"sin": torch.zeros(2, 3, 4, 8, device="meta")}, ValueError, "sin must be on the device of qkv"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_rejects(mistake: str) -> None:
    wrong, error, message = MISTAKES[mistake]
    problem = make_problem()
    arguments = {"qkv": problem.qkv, "cos": problem.cos, "sin": problem.sin, **problem.settings}
    wrong = {
        name: value.to(DEVICE) if isinstance(value, Tensor) and not value.is_meta else value
        for name, value in wrong.items()
    }
    with pytest.raises(error, match=message):
        ops.rotary_embedding(**(arguments | wrong))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"qkv": torch.zeros(25, 48)}, "qkv must have 3 dimensions"),
        ({"qkv": torch.zeros(2, 24, 48)}, "qkv must have size 25 along dimension 1, got 24"),
        ({"grid": (2, 3, 0)}, "cos must have size 1 or that of the grid"),
        ({"num_heads": 5}, "num_heads must divide C"),
        ({"num_prefix": -1}, "num_prefix be at least 0"),
        ({"cos": torch.zeros(2, 3, 3, 8)}, "cos must have size 1 or that of the grid"),
        ({"cos": torch.zeros(2, 3, 4, 10)}, "even number of channels, at most head_dim"),
        ({"cos": torch.zeros(2, 3, 4, 8).double()}, "cos has the wrong dtype"),
        ({"sin": torch.zeros(2, 3, 1, 8)}, "sin must have size 4 along dimension 2, got 1"),
    ],
    ids=["rank", "tokens", "grid", "heads", "prefix", "table", "channels", "dtype", "sin"],
)
def test_the_registered_operator_guards_memory_by_itself(changed: dict[str, Any], message: str) -> None:
    problem = make_problem()
    arguments = {"qkv": problem.qkv, "cos": problem.cos, "sin": problem.sin, **problem.settings, "transpose": False}
    changed = {name: value.to(DEVICE) if isinstance(value, Tensor) else value for name, value in changed.items()}
    with pytest.raises(RuntimeError, match=message):
        torch.ops.vtfast.rotary_embedding.default(**(arguments | changed))


@pytest.mark.requires_cuda
def test_more_elements_than_32_bits_can_count() -> None:
    torch.cuda.empty_cache()
    if torch.cuda.mem_get_info()[0] < 12 * 2**30:
        pytest.skip("needs 12 GiB of free GPU memory")
    grid = (8, 128, 128)
    cos, sin = torch.randn(2, *grid, 64, device=DEVICE).unbind(0)
    qkv = torch.randn(1, 131072, 3 * 512, device=DEVICE, dtype=torch.bfloat16).repeat(11, 1, 1)
    assert qkv.numel() > 2**31
    out = native(qkv, grid, cos, sin, num_heads=8)
    assert torch.equal(out[-1:], native(qkv[-1:].clone(), grid, cos, sin, num_heads=8))


@pytest.mark.requires_cuda
def test_a_captured_call_replays_on_new_data() -> None:
    problem = make_problem()
    evaluate(native, problem)  # what is loaded once cannot be captured
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = evaluate(native, problem)
    problem.qkv.normal_()
    graph.replay()
    torch.testing.assert_close(captured, evaluate(native, problem), rtol=0, atol=0)
