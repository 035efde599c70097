"""Grid attention: result and all gradients of the compiled kernels against the reference, by tolerance.py's rule."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from attention_check import DTYPES, Problem, Triple, check, evaluate, every_dtype, make_problem, native
from target import DEVICE, EMULATED, thinned

pytestmark = [pytest.mark.requires_native, pytest.mark.every_device]

# On either side of 8, 16 and 32 tokens, and of how many groups share a tile.
every_size = pytest.mark.parametrize("size", thinned(range(1, 81), 1, 2, 5, 7, 8, 9, 16, 17, 31, 33, 49, 79))


def cuboid(count: int) -> Triple:
    """The block of `count` tokens that is nearest to a cube; a line if the count is prime."""
    shapes = [
        (count // (h * w), h, w) for h in range(1, count + 1) for w in range(1, count + 1) if count % (h * w) == 0
    ]
    return min(shapes, key=lambda shape: (sum(shape), shape))


def test_fresh_memory_is_poisoned() -> None:
    """What all tests here rely on: an element that a kernel forgets to write is NaN."""
    assert torch.empty(1000, device=DEVICE).isnan().all()
    assert torch.empty(1000, dtype=torch.bfloat16, device=DEVICE).isnan().all()


@every_dtype
@every_size
def test_every_group_size_as_a_line(size: int, dtype: torch.dtype) -> None:
    check(make_problem((1, 2, 2 * size), (1, 1, size), dtype=dtype, batch=1, num_heads=1))


@every_dtype
@every_size
def test_every_group_size_as_a_shifted_and_padded_cuboid(size: int, dtype: torch.dtype) -> None:
    block = cuboid(size)
    shift = (block[0] // 2, block[1] // 2, block[2] // 2)
    grid = (block[0] + 1, block[1], block[2] + block[2] // 2)
    check(make_problem(grid, block, shift=shift, dtype=dtype, batch=1, num_heads=1, num_prefix=1))


@every_dtype
@pytest.mark.parametrize("size", thinned([97, 127, 193, 392, 401], 97, 193))
def test_large_and_prime_groups(size: int, dtype: torch.dtype) -> None:
    check(make_problem((1, 1, size), (1, 1, size), dtype=dtype, batch=1, num_heads=1, head_dim=32))


@every_dtype
@pytest.mark.parametrize(("size", "head_dim"), [(225, 96), (401, 64), (401, 128)])
def test_groups_that_do_not_fit_the_shared_memory_of_a_gpu(size: int, head_dim: int, dtype: torch.dtype) -> None:
    settings = {"shift": (0, 0, 2), "num_prefix": 1, "prefix_queries": "mean"}
    check(make_problem((1, 1, size), (1, 1, size), dtype=dtype, batch=1, num_heads=1, head_dim=head_dim, **settings))


@every_dtype
@pytest.mark.parametrize("width", [12_000, 20_000, 30_000])
def test_bias_tables_that_do_not_fit_the_shared_memory_of_a_gpu(width: int, dtype: torch.dtype) -> None:
    check(make_problem((1, 3, 8), (1, 2, 6), shift=(0, 1, 2), bias_window=(1, 2, width), dtype=dtype, num_heads=1))


@every_dtype
def test_the_window_of_video_swin(dtype: torch.dtype) -> None:
    grid, num_heads = ((8, 7, 7), 1) if EMULATED else ((8, 8, 9), 3)
    check(make_problem(grid, (8, 7, 7), shift=(4, 3, 3), dtype=dtype, batch=1, num_heads=num_heads, head_dim=32))


@every_dtype
@pytest.mark.parametrize(
    "head_dim",
    [*range(1, 19), 23, 24, 31, 32, 33, 40, 47, 48, 56, 63, 64, 65, 72, 80, 88, 96, 97, 104, 112, 120, 127, 128, 136],
)
def test_every_head_dim(head_dim: int, dtype: torch.dtype) -> None:
    check(make_problem((1, 3, 10), (1, 2, 5), dtype=dtype, head_dim=head_dim, num_heads=3, batch=1))


@pytest.mark.parametrize("grid", [(4, 6, 4), (3, 5, 3), (1, 4, 2)], ids=str)
@pytest.mark.parametrize(
    "shift", thinned(product(range(2), range(3), range(2)), (0, 0, 0), (1, 0, 1), (0, 2, 0), (1, 2, 1)), ids=str
)
def test_every_shift(shift: Triple, grid: Triple) -> None:
    check(make_problem(grid, (2, 3, 2), shift=shift))


@pytest.mark.parametrize(
    "shift", thinned(product(range(2), range(4), range(6)), (0, 0, 0), (0, 1, 4), (1, 2, 3), (1, 3, 5)), ids=str
)
def test_every_shift_of_a_dilated_block(shift: Triple) -> None:
    check(make_problem((3, 7, 11), (2, 2, 2), dilation=(1, 2, 3), shift=shift, batch=1))


@every_dtype
@pytest.mark.parametrize("dilation", [(2, 1, 1), (1, 2, 2), (3, 2, 4), (1, 1, 9)], ids=str)
def test_dilation(dilation: Triple, dtype: torch.dtype) -> None:
    check(make_problem((5, 6, 8), (2, 3, 2), dilation=dilation, dtype=dtype))


SCHEMES = {
    "time": ((4, 1, 1), (1, 1, 1)),
    "space": ((1, 6, 8), (1, 1, 1)),
    "joint": ((4, 6, 8), (1, 1, 1)),
    "axial-width": ((1, 1, 8), (1, 1, 1)),
    "axial-height": ((1, 6, 1), (1, 1, 1)),
    "sparse-local": ((4, 3, 4), (1, 1, 1)),
    "sparse-global": ((4, 3, 4), (1, 2, 2)),
}


@every_dtype
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_schemes_of_timesformer(scheme: str, dtype: torch.dtype) -> None:
    block, dilation = SCHEMES[scheme]
    settings = {"dilation": dilation, "num_prefix": 1, "prefix_queries": "mean"}
    check(make_problem((4, 6, 8), block, dtype=dtype, bias=False, pad=False, batch=1, **settings))


@every_dtype
@pytest.mark.parametrize("prefix_queries", ["none", "global", "mean"])
@pytest.mark.parametrize("prefix_keys", [True, False], ids=["keys", "no-keys"])
@pytest.mark.parametrize("num_prefix", [1, 3])
def test_prefix_tokens(num_prefix: int, prefix_keys: bool, prefix_queries: str, dtype: torch.dtype) -> None:
    settings = {"num_prefix": num_prefix, "prefix_keys": prefix_keys, "prefix_queries": prefix_queries}
    check(make_problem((3, 4, 5), (2, 2, 3), shift=(1, 0, 1), dtype=dtype, **settings))


def test_many_prefix_tokens() -> None:
    """More prefix rows than a register tile is high, more prefix keys than a panel is wide."""
    check(make_problem((2, 3, 4), (1, 3, 2), num_prefix=37, prefix_queries="mean"))
    check(make_problem((2, 3, 4), (1, 3, 2), num_prefix=37, prefix_queries="global"))


@every_dtype
@pytest.mark.parametrize("prefix_queries", ["none", "global", "mean"])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.1, 0.0], ids=lambda share: f"{share:.0%}-open")
def test_key_mask(share: float, prefix_queries: str, dtype: torch.dtype) -> None:
    key_mask = torch.rand(2, 3 * 4 * 5) < share
    settings = {"num_prefix": 1, "prefix_queries": prefix_queries, "key_mask": key_mask}
    check(make_problem((3, 4, 5), (2, 2, 2), shift=(1, 1, 0), dtype=dtype, **settings))


@every_dtype
@pytest.mark.parametrize("prefix_queries", ["none", "global", "mean"])
def test_queries_without_a_key_give_zeros_and_take_no_gradient(prefix_queries: str, dtype: torch.dtype) -> None:
    """With no key left in the first window, and no prefix among the keys; the second window goes on as ever."""
    key_mask = torch.tensor([[False] * 4 + [True] * 4])
    settings = {"num_prefix": 1, "prefix_keys": False, "prefix_queries": prefix_queries, "key_mask": key_mask}
    problem = make_problem((2, 2, 2), (1, 2, 2), dtype=dtype, batch=1, pad=False, **settings)
    check(problem)
    results = evaluate(native, problem)
    prefix = results["out"].shape[1] - 8
    assert (results["out"][:, prefix : prefix + 4] == 0).all()
    assert (results["out"][:, prefix + 4 :] != 0).all()
    d_q, d_k, d_v = results["d_qkv"][:, 1:5].chunk(3, dim=-1)
    assert (d_q == 0).all()
    assert (d_k == 0).all()
    assert (d_v == 0).all()


def test_everything_masked() -> None:
    problem = make_problem((2, 3, 4), (1, 3, 2), key_mask=torch.zeros(2, 2, 3, 4, dtype=torch.bool))
    for name, result in evaluate(native, problem).items():
        assert (result == 0).all(), name


@every_dtype
@pytest.mark.parametrize("pad", [True, False], ids=["pad_qkv", "zeros"])
@pytest.mark.parametrize("grid", [(3, 4, 4), (4, 5, 4), (4, 4, 7), (5, 7, 5), (1, 1, 1), (9, 1, 2)], ids=str)
def test_padding(grid: Triple, pad: bool, dtype: torch.dtype) -> None:
    check(make_problem(grid, (2, 4, 4), dtype=dtype, pad=pad, shift=(1, 2, 2)))


@every_dtype
@pytest.mark.parametrize("shift", [(0, 0, 0), (3, 5, 7)], ids=["plain", "shifted"])
@pytest.mark.parametrize("grid", thinned([(1, 1, 1), (2, 3, 1), (3, 5, 6), (4, 1, 7)], (1, 1, 1), (3, 5, 6)), ids=str)
def test_blocks_larger_than_the_grid(grid: Triple, shift: Triple, dtype: torch.dtype) -> None:
    # Clips enough that plain PyTorch is not exact by luck.
    check(make_problem(grid, (4, 6, 8), shift=shift, dtype=dtype, batch=4))


@every_dtype
def test_groups_of_padding_alone(dtype: torch.dtype) -> None:
    """A dilated span that the grid hardly enters: all but one of nine groups hold no token."""
    check(make_problem((1, 1, 1), (1, 2, 2), dilation=(1, 3, 3), dtype=dtype))
    check(make_problem((1, 1, 1), (1, 2, 2), dilation=(1, 3, 3), dtype=dtype, num_prefix=1, prefix_queries="mean"))


# Grid, block, and the rest: padding on each axis alone and on all, in groups of 8 to 75 tokens, and of padding alone.
NO_PAD_KEYS: dict[str, tuple[Triple, Triple, dict[str, Any]]] = {
    "frames": ((3, 2, 4), (2, 2, 2), {"num_prefix": 1, "prefix_queries": "mean"}),
    "rows": ((2, 5, 2), (2, 2, 2), {"shift": (1, 1, 1)}),
    "columns": ((2, 2, 5), (1, 2, 4), {"num_prefix": 3, "prefix_queries": "global"}),
    "all": ((3, 5, 7), (2, 2, 3), {"shift": (1, 1, 2), "num_prefix": 1}),
    "dilated": ((3, 5, 7), (2, 2, 2), {"dilation": (1, 2, 2), "num_prefix": 1, "prefix_queries": "mean"}),
    "masked": ((3, 5, 7), (2, 3, 2), {"key_mask": torch.arange(210).view(2, 105) % 3 != 0}),
    "larger-table": ((3, 5, 4), (2, 3, 3), {"bias_window": (2, 5, 3), "bias_order": "window"}),
    "long": ((4, 6, 7), (3, 5, 5), {"shift": (1, 2, 0), "num_prefix": 1, "prefix_queries": "mean"}),
    "long-dilated": ((3, 9, 16), (2, 6, 6), {"dilation": (1, 1, 2), "shift": (0, 2, 5), "num_prefix": 2}),
    "larger-than-the-grid": ((3, 5, 6), (4, 6, 8), {"num_prefix": 1, "prefix_queries": "global"}),
    "groups-of-nothing": ((1, 1, 2), (1, 2, 2), {"dilation": (1, 3, 3), "num_prefix": 1, "prefix_queries": "mean"}),
    "groups-of-nothing-without-a-key": ((1, 1, 2), (1, 2, 2), {"dilation": (1, 3, 3)}),
}


@every_dtype
@pytest.mark.parametrize("case", thinned(NO_PAD_KEYS, "frames", "all", "dilated", "long", "groups-of-nothing"))
def test_padding_that_is_no_key(case: str, dtype: torch.dtype) -> None:
    grid, block, settings = NO_PAD_KEYS[case]
    problem = make_problem(grid, block, dtype=dtype, pad_keys=False, **settings)
    check(problem)
    results = evaluate(native, problem)
    assert (results["d_pad_qkv"] == 0).all()
    problem.pad_qkv *= -30
    for name, result in evaluate(native, problem).items():
        assert torch.equal(result, results[name]), name


@every_dtype
@pytest.mark.parametrize("order", ["block", "window"])
@pytest.mark.parametrize("window", [(2, 3, 2), (3, 3, 2), (2, 5, 2), (2, 3, 4), (5, 4, 6)], ids=str)
def test_bias_of_a_larger_window(window: Triple, order: str, dtype: torch.dtype) -> None:
    check(make_problem((4, 5, 4), (2, 3, 2), bias_window=window, bias_order=order, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float32_table_of_low_precision_tokens(dtype: torch.dtype) -> None:
    problem = make_problem((4, 5, 4), (2, 3, 2), dtype=dtype, bias_dtype=torch.float32)
    check(problem)
    assert evaluate(native, problem)["d_bias_table"].dtype == torch.float32


@every_dtype
@pytest.mark.parametrize("logits", [30.0, 1e4], ids=lambda logits: f"{logits:g}")
@pytest.mark.parametrize("prefix_queries", ["none", "global", "mean"])
def test_huge_logits(prefix_queries: str, logits: float, dtype: torch.dtype) -> None:
    settings = {"num_prefix": 2, "prefix_queries": prefix_queries}
    check(make_problem((2, 5, 6), (2, 3, 4), shift=(0, 1, 2), dtype=dtype, logits=logits, **settings))


@pytest.mark.parametrize("offset", [-1e4, 1e4], ids=str)
def test_scores_far_from_zero(offset: float) -> None:
    """No softmax changes when all scores of a row grow alike, here through the table."""
    # float32 holds a score of 10000 to 0.0005.
    dtype, tolerance = (torch.float64, 1e-9) if torch.float64 in DTYPES else (torch.float32, 1e-2)
    problem = make_problem((2, 3, 4), (1, 3, 2), dtype=dtype)
    plain = evaluate(native, problem)
    problem.bias_table += offset
    torch.testing.assert_close(evaluate(native, problem), plain, rtol=tolerance, atol=tolerance)


@every_dtype
@pytest.mark.parametrize("scale", [1.0, 0.01, -0.5, 0.0])
def test_scale(scale: float, dtype: torch.dtype) -> None:
    check(make_problem((2, 5, 6), (2, 3, 4), scale=scale, dtype=dtype))


def test_scale_is_the_inverse_root_of_head_dim() -> None:
    problem = make_problem((2, 3, 4), (1, 3, 2), head_dim=16)
    default = evaluate(native, problem)["out"]
    problem.settings["scale"] = 1 / math.sqrt(16)
    assert torch.equal(evaluate(native, problem)["out"], default)


@pytest.mark.skipif(EMULATED, reason="280,400 tokens")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_more_windows_than_a_launch_dimension_holds(dtype: torch.dtype) -> None:
    check(make_problem((1, 200, 701), (1, 1, 2), dtype=dtype, batch=1, num_heads=1))


@every_dtype
def test_empty_batch(dtype: torch.dtype) -> None:
    settings = {"num_prefix": 1, "prefix_queries": "mean", "key_mask": torch.ones(0, 60, dtype=torch.bool)}
    results = evaluate(native, make_problem((3, 4, 5), (2, 2, 3), batch=0, dtype=dtype, **settings))
    assert results["out"].shape == (0, 61, 16)
    assert results["d_qkv"].shape == (0, 61, 48)
    assert (results["d_bias_table"] == 0).all()
    assert (results["d_pad_qkv"] == 0).all()


BLOCKS_OF_ONE_TILE = [(1, 1, 2), (2, 1, 1), (1, 3, 1), (1, 3, 2), (2, 3, 2)]


def poison(problem: Problem, part: str, value: float) -> None:
    """Puts `value` into head 0 of token 5 of the first clip."""
    tensor = problem.grad_out if part == "grad_out" else problem.qkv[..., 16 * "qkv".index(part) :]
    tensor[0, 5, 0] = value


@pytest.mark.parametrize("block", BLOCKS_OF_ONE_TILE, ids=str)
@pytest.mark.parametrize("part", ["q", "k", "v", "grad_out"])
def test_nan_does_not_vanish(part: str, block: Triple) -> None:
    problem = make_problem((2, 3, 4), block)
    poison(problem, part, math.nan)
    check(problem)
    assert evaluate(native, problem)["d_qkv"].isnan().any()


@every_dtype
@pytest.mark.parametrize("block", BLOCKS_OF_ONE_TILE, ids=str)
@pytest.mark.parametrize("part", ["q", "k", "v", "grad_out"])
@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
def test_what_is_not_finite_stays_in_its_group(value: float, part: str, block: Triple, dtype: torch.dtype) -> None:
    problem = make_problem((2, 3, 4), block, dtype=dtype)
    clean = evaluate(native, problem)
    poison(problem, part, value)
    poisoned = evaluate(native, problem)
    group = torch.cartesian_prod(*(torch.arange(size) for size in (2, 3, 4))) // torch.tensor(block)
    others = (group != group[5]).any(dim=-1).to(DEVICE)
    assert not poisoned["d_qkv"].isfinite().all()
    for name in ("out", "d_qkv"):
        assert torch.equal(poisoned[name][0, others], clean[name][0, others])
        assert torch.equal(poisoned[name][1], clean[name][1])
