"""Token pooling: result and all gradients of the compiled kernels against the reference, by tolerance.py's rule."""

import math
from itertools import product

import pytest
import torch
from attention_check import every_dtype
from kernel_check import Problem, check, evaluate, plain
from pooling_check import MODES, Pool, Triple, make_pool_tokens
from target import CPU_KERNELS, DEVICE, EMULATED, thinned

pytestmark = [pytest.mark.requires_native, pytest.mark.every_device]

every_mode = pytest.mark.parametrize("mode", MODES)
either_norm = pytest.mark.parametrize("norm", [True, False], ids=["norm", "bare"])

GRID = (3, 9, 10)
# Kernel and stride: those of published models, even kernels, strides larger than kernel and grid, and single axes.
WINDOWS: dict[str, tuple[Triple, Triple]] = {
    "block": ((3, 3, 3), (1, 1, 1)),
    "halved": ((3, 3, 3), (1, 2, 2)),
    "quartered": ((3, 3, 3), (1, 4, 4)),
    "eighth": ((3, 3, 3), (1, 8, 8)),
    "plane": ((1, 3, 3), (1, 2, 2)),
    "plane-5": ((1, 5, 5), (1, 4, 4)),
    "plane-9": ((1, 9, 9), (1, 8, 8)),
    "frames": ((3, 3, 3), (2, 2, 2)),
    "even-2": ((2, 2, 2), (2, 2, 2)),
    "even-4": ((4, 4, 2), (2, 3, 1)),
    "sparse": ((3, 3, 3), (5, 11, 12)),
    "wide": ((7, 1, 11), (1, 1, 2)),
    "uneven": ((5, 3, 2), (1, 2, 3)),
    "one": ((1, 1, 1), (1, 1, 1)),
    "one-in-two": ((1, 1, 1), (1, 2, 2)),
}


@every_dtype
@every_mode
@either_norm
@pytest.mark.parametrize("window", thinned(WINDOWS, "block", "halved", "even-4", "sparse", "one"))
def test_windows(window: str, norm: bool, mode: str, dtype: torch.dtype) -> None:
    check(make_pool_tokens(GRID, Pool(*WINDOWS[window], mode, norm), dtype=dtype))


HEAD_DIMS = [8, 32, 64, 72, 96] + ([1, 2, 7, 20, 33, 97] if CPU_KERNELS else [12, 136])


@every_dtype
@every_mode
@pytest.mark.parametrize("head_dim", thinned(HEAD_DIMS, 8, 12, 96) if EMULATED else HEAD_DIMS)
def test_head_dims(head_dim: int, mode: str, dtype: torch.dtype) -> None:
    pool = Pool((3, 3, 3), (1, 2, 2), mode)
    check(make_pool_tokens((2, 4, 3), pool, head_dim=head_dim, num_heads=3, dtype=dtype))


@every_dtype
@every_mode
@either_norm
@pytest.mark.parametrize(
    ("num_prefix", "batch"), thinned(product([0, 1, 3], [1, 3]), (0, 1), (3, 3)), ids=lambda value: str(value)
)
def test_prefixes_and_batches(num_prefix: int, batch: int, norm: bool, mode: str, dtype: torch.dtype) -> None:
    problem = make_pool_tokens(
        (2, 5, 4), Pool((3, 3, 3), (1, 2, 2), mode, norm), num_prefix=num_prefix, batch=batch, dtype=dtype
    )
    check(problem)
    if not norm:
        results = evaluate(problem)
        assert torch.equal(results["out0"][:, :num_prefix], problem.tokens[:, :num_prefix])
        assert torch.equal(results["d_x"][:, :num_prefix], problem.grads_out[0][:, :num_prefix])


SIZES = [(1, 1, 1), (1, 1, 7), (5, 1, 1), (1, 14, 14), (2, 3, 17), (8, 7, 7), (1, 2, 33)]


@every_dtype
@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2)], ids=["1", "2"])
@pytest.mark.parametrize("grid", thinned(SIZES, (1, 1, 1), (2, 3, 17)), ids=str)
def test_grids(grid: Triple, stride: Triple, dtype: torch.dtype) -> None:
    check(make_pool_tokens(grid, Pool((3, 3, 3), stride), dtype=dtype, num_heads=1))


@pytest.mark.skipif(EMULATED, reason="the size of a model")
@every_dtype
@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (1, 4, 4)], ids=str)
def test_a_block_of_a_model(stride: Triple, dtype: torch.dtype) -> None:
    check(make_pool_tokens((4, 28, 28), Pool((3, 3, 3), stride), dtype=dtype, head_dim=96, num_heads=2, batch=1))


@every_dtype
def test_sums_of_many_windows(dtype: torch.dtype) -> None:
    """More than one block of threads adds up for the weights."""
    check(make_pool_tokens((4, 12, 12), Pool((3, 3, 3)), dtype=dtype, head_dim=96, batch=1))


@every_dtype
@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 3)], ids=str)
def test_a_window_of_many_tokens(stride: Triple, dtype: torch.dtype) -> None:
    """Its weights are more than a GPU's shared memory holds."""
    check(make_pool_tokens((2, 4, 5), Pool((7, 7, 7), stride), dtype=dtype, head_dim=64, batch=1))


@every_dtype
@every_mode
def test_the_largest_heads_of_a_gpu(mode: str, dtype: torch.dtype) -> None:
    check(
        make_pool_tokens((2, 2, 3), Pool((1, 3, 3), (1, 1, 1), mode), dtype=dtype, head_dim=1536, num_heads=1, batch=1)
    )


@every_dtype
def test_the_skip_path_of_a_model(dtype: torch.dtype) -> None:
    """One head of all channels and no norm."""
    check(make_pool_tokens((2, 7, 6), Pool((1, 3, 3), (1, 2, 2), "max", False), num_heads=1, head_dim=192, dtype=dtype))


@every_dtype
@pytest.mark.parametrize("window", ["halved", "even-2", "block"])
@pytest.mark.parametrize("grid", [GRID, (5, 4, 3)], ids=["few-frames", "many-frames"])
def test_of_equal_values_the_first_is_the_largest(grid: Triple, window: str, dtype: torch.dtype) -> None:
    """The gradient goes to one token, as in plain PyTorch; sums of small integers are exact in every type."""
    problem = make_pool_tokens(grid, Pool(*WINDOWS[window], "max", False), dtype=dtype)
    problem.leaves["x"] = problem.tokens.round()
    problem.grads_out = (problem.grads_out[0].round(),)
    problem.leaves["x"][1] = 0
    actual, expected = evaluate(problem), evaluate(problem, plain)
    assert torch.equal(actual["out0"], expected["out0"])
    assert torch.equal(actual["d_x"], expected["d_x"])


def poison(problem: Problem, values: list[float]) -> None:
    """Puts each of `values` into a token and channel of its own, one of them of the prefix."""
    tokens = problem.tokens
    places = [(0, 0, 1), (0, 5, 2), (1, 40, 3), (0, 45, 2), (0, 46, 2), (1, 200, 9)]
    for place, value in zip(places, values * 3, strict=False):
        tokens[place] = value


@every_dtype
@every_mode
@either_norm
@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
def test_what_is_not_finite_stays_in_its_windows(value: float, norm: bool, mode: str, dtype: torch.dtype) -> None:
    problem = make_pool_tokens(GRID, Pool((3, 3, 3), (1, 2, 2), mode, norm), dtype=dtype)
    poison(problem, [value])
    check(problem)
    assert not evaluate(problem)["out0"].isfinite().all()


@every_dtype
@either_norm
def test_the_largest_of_nothing_but_minus_infinity(norm: bool, dtype: torch.dtype) -> None:
    problem = make_pool_tokens((2, 5, 4), Pool((3, 3, 3), (1, 2, 2), "max", norm), dtype=dtype)
    problem.tokens[0, 1:] = -math.inf

    check(problem)


@every_dtype
@every_mode
def test_a_norm_of_equal_channels(mode: str, dtype: torch.dtype) -> None:
    """Their spread is zero, and eps alone keeps the norm finite."""
    problem = make_pool_tokens((2, 5, 4), Pool((3, 3, 3), (1, 2, 2), mode), dtype=dtype, eps=1e-2)
    problem.leaves["x"] = torch.zeros_like(problem.tokens)
    check(problem)
    results = evaluate(problem)
    bias = problem.leaves["norm_bias"].repeat(2).expand_as(results["out0"])
    assert torch.equal(results["out0"], bias)


@every_dtype
@pytest.mark.parametrize("eps", [1e-6, 1e-5, 0.5], ids=str)
def test_eps(eps: float, dtype: torch.dtype) -> None:
    check(make_pool_tokens((2, 5, 4), Pool((3, 3, 3)), dtype=dtype, eps=eps))


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_a_norm_of_tokens_far_from_zero(mode: str) -> None:
    """A variance taken as the difference of two large means would be noise."""
    problem = make_pool_tokens((2, 5, 4), Pool((1, 2, 2), (1, 1, 1), mode), head_dim=96)
    problem.leaves["x"] = problem.tokens + 1000
    check(problem)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_mode
def test_float32_parameters_of_low_precision_tokens(mode: str, dtype: torch.dtype) -> None:
    problem = make_pool_tokens(GRID, Pool((3, 3, 3), (1, 2, 2), mode), dtype=dtype, parameter_dtype=torch.float32)
    check(problem)
    results = evaluate(problem)
    assert all(results[f"d_{name}"].dtype == tensor.dtype for name, tensor in problem.leaves.items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_rounded_once(dtype: torch.dtype) -> None:
    """A pooled token of 256 + 1 is no bfloat16, and one of 2048 + 1 no float16: a norm of it rounded would differ."""
    problem = make_pool_tokens((1, 4, 4), Pool((1, 3, 3)), dtype=dtype, num_prefix=0)
    wide = problem.changed(torch.Tensor.float)
    narrow, exact = evaluate(problem)["out0"], evaluate(wide)["out0"]
    spacing = torch.finfo(dtype).eps * exact.abs()
    assert ((narrow.float() - exact).abs() <= 0.5 * spacing + 1e-5).all()


def test_the_parameters_are_shared_by_the_heads() -> None:
    problem = make_pool_tokens((2, 4, 3), Pool((3, 3, 3)), num_heads=1, batch=1)
    problem.leaves["x"] = problem.tokens.repeat(1, 1, 4)
    problem.settings["num_heads"] = 4
    problem.grads_out = (torch.zeros_like(problem.leaves["x"]),)
    heads = evaluate(problem)["out0"].unflatten(-1, (4, -1)).unbind(2)
    assert all(torch.equal(head, heads[0]) for head in heads)


def test_a_scalar_is_a_triple() -> None:
    problem = make_pool_tokens((3, 4, 5), Pool((3, 3, 3), (2, 2, 2)))
    expected = evaluate(problem)["out0"]
    problem.settings |= {"kernel": 3, "stride": 2}
    assert torch.equal(evaluate(problem)["out0"], expected)
    assert expected.device.type == DEVICE.type
