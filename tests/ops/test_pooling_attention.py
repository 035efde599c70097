"""Pooling attention: result and all gradients of the compiled kernels against the reference, by tolerance.py's rule."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from attention_check import DTYPES, every_dtype
from kernel_check import check, evaluate, native, plain
from pooling_attention_check import Triple, make_pooling_attention
from target import CPU_KERNELS, DEVICE, EMULATED, thinned

from vtfast import reference

pytestmark = [pytest.mark.requires_native, pytest.mark.every_device]

# Grids of queries and keys: equal, finer queries, finer keys, on each axis, and sizes that do not divide each other.
GRIDS: dict[str, tuple[Triple, Triple]] = {
    "equal": ((3, 4, 5), (3, 4, 5)),
    "pooled-keys": ((2, 8, 8), (2, 2, 2)),
    "pooled-queries": ((2, 2, 3), (2, 4, 6)),
    "pooled-frames": ((6, 2, 2), (2, 2, 2)),
    "one-key": ((2, 3, 4), (1, 1, 1)),
    "one-query": ((1, 1, 1), (2, 3, 5)),
    "uneven": ((3, 7, 10), (2, 3, 4)),
    "uneven-keys": ((2, 3, 4), (3, 7, 10)),
    "mixed": ((1, 9, 2), (3, 2, 7)),
    "wide": ((1, 2, 20), (1, 3, 37)),
    "narrow": ((2, 37, 1), (1, 20, 1)),
}


@every_dtype
@pytest.mark.parametrize("num_prefix", [0, 1, 3])
@pytest.mark.parametrize(
    "case", thinned(GRIDS, "equal", "pooled-keys", "one-key", "one-query", "uneven", "uneven-keys", "wide")
)
def test_grids(case: str, num_prefix: int, dtype: torch.dtype) -> None:
    check(make_pooling_attention(*GRIDS[case], num_prefix=num_prefix, dtype=dtype, residual=True))


@every_dtype
@pytest.mark.parametrize("rel_pos", ["", "t", "h", "w", "th", "tw", "hw", "thw"])
def test_relative_positions_along_some_axes(rel_pos: str, dtype: torch.dtype) -> None:
    check(make_pooling_attention((2, 3, 6), (4, 3, 2), rel_pos=rel_pos, dtype=dtype))


@every_dtype
@pytest.mark.parametrize("count", thinned(range(1, 41), 1, 2, 8, 15, 17, 33))
def test_every_number_of_queries(count: int, dtype: torch.dtype) -> None:
    check(make_pooling_attention((1, 1, count), (1, 3, 3), dtype=dtype, num_prefix=0, num_heads=1))


KEYS: list[Triple] = [
    (1, 1, 2), (1, 1, 7), (1, 3, 5), (1, 4, 4), (1, 1, 17), (1, 1, 31), (1, 4, 8), (1, 3, 11), (3, 3, 7), (1, 8, 8),
    (5, 13, 1), (1, 5, 19), (4, 4, 8), (1, 3, 43), (8, 7, 7), (3, 11, 13),
]  # fmt: skip


@every_dtype
@pytest.mark.parametrize("num_prefix", [0, 1])
@pytest.mark.parametrize("k_grid", thinned(KEYS, (1, 1, 2), (1, 1, 17), (1, 3, 11), (5, 13, 1)), ids=str)
def test_numbers_of_keys(k_grid: Triple, num_prefix: int, dtype: torch.dtype) -> None:
    check(make_pooling_attention((1, 2, 5), k_grid, dtype=dtype, num_prefix=num_prefix, num_heads=1))


HEAD_DIMS = [8, 16, 32, 64, 72, 96, 128] + ([1, 3, 7, 20, 33, 100, 160] if CPU_KERNELS else [12, 136])


@every_dtype
@pytest.mark.parametrize("head_dim", thinned(HEAD_DIMS, 8, 12, 64, 72, 128, 136) if EMULATED else HEAD_DIMS)
def test_head_dims(head_dim: int, dtype: torch.dtype) -> None:
    settings = {"num_heads": 3, "residual": True}
    check(make_pooling_attention((1, 5, 7), (1, 4, 5), head_dim=head_dim, dtype=dtype, **settings))


@every_dtype
def test_many_positions(dtype: torch.dtype) -> None:
    """More keys along an axis, and more rows of a table, than a thread block has room for at once."""
    check(make_pooling_attention((1, 1, 400), (1, 1, 100), dtype=dtype, batch=1, num_heads=1))


@pytest.mark.skipif(CPU_KERNELS, reason="a limit of GPUs")
def test_too_many_positions_are_refused() -> None:
    with pytest.raises(RuntimeError, match="512"):
        native(make_pooling_attention((1, 1, 2), (1, 1, 513)))


@pytest.mark.skipif(EMULATED, reason="the size of a model")
@every_dtype
@pytest.mark.parametrize(
    ("q_grid", "k_grid"), [((8, 14, 14), (8, 7, 7)), ((8, 7, 7), (8, 14, 14)), ((2, 39, 39), (2, 10, 10))], ids=str
)
def test_blocks_of_a_model(q_grid: Triple, k_grid: Triple, dtype: torch.dtype) -> None:
    """Queries in thousands, hundreds of keys, and the grids of MViTv2-L at 312, whose ratio is no integer."""
    settings = {"num_heads": 2, "head_dim": 96, "residual": True}
    check(make_pooling_attention(q_grid, k_grid, dtype=dtype, batch=1, **settings))


RESIDUALS: dict[str, dict[str, Any]] = {
    "grid": {"residual": True},
    "all": {"residual_prefix": True},
    "both": {"residual": True, "residual_prefix": True},
    "none": {},
}


@every_dtype
@pytest.mark.parametrize("num_prefix", [0, 1, 2])
@pytest.mark.parametrize("case", RESIDUALS)
def test_residual_pooling(case: str, num_prefix: int, dtype: torch.dtype) -> None:
    check(make_pooling_attention((2, 3, 4), (2, 2, 2), num_prefix=num_prefix, dtype=dtype, **RESIDUALS[case]))


@every_dtype
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("num_heads", [1, 5])
def test_batches_and_heads(num_heads: int, batch: int, dtype: torch.dtype) -> None:
    check(make_pooling_attention((1, 3, 6), (1, 3, 3), batch=batch, num_heads=num_heads, dtype=dtype))


@every_dtype
@pytest.mark.parametrize("logits", [30.0, 1e4], ids=lambda logits: f"{logits:g}")
@pytest.mark.parametrize("rel_pos", ["", "thw"], ids=["plain", "relative"])
def test_huge_logits(rel_pos: str, logits: float, dtype: torch.dtype) -> None:
    check(make_pooling_attention((2, 5, 6), (2, 3, 3), rel_pos=rel_pos, logits=logits, dtype=dtype))


@pytest.mark.parametrize("offset", [-1e4, 1e4], ids=str)
def test_scores_far_from_zero(offset: float) -> None:
    """No softmax changes when all scores of a row grow alike, here through a table."""
    # float32 holds a score of 10000 to 0.0005.
    dtype, tolerance = (torch.float64, 1e-9) if torch.float64 in DTYPES else (torch.float32, 1e-2)
    problem = make_pooling_attention((2, 3, 4), (1, 3, 2), dtype=dtype, num_prefix=0)
    problem.leaves["q"][..., ::8] = 1
    expected = evaluate(problem)
    problem.leaves["rel_pos_h"][:, 0] += offset
    actual = evaluate(problem)
    for name in ("out0", "d_k", "d_v"):
        torch.testing.assert_close(actual[name], expected[name], rtol=tolerance, atol=tolerance, msg=name)


@every_dtype
@pytest.mark.parametrize("scale", [1.0, 0.01, -0.5, 0.0])
def test_scale(scale: float, dtype: torch.dtype) -> None:
    check(make_pooling_attention((2, 5, 6), (2, 3, 3), scale=scale, dtype=dtype))


def test_scale_is_the_inverse_root_of_head_dim() -> None:
    problem = make_pooling_attention((2, 3, 4), (1, 3, 2), head_dim=16)
    default = evaluate(problem)["out0"]
    problem.settings["scale"] = 1 / math.sqrt(16)
    assert torch.equal(evaluate(problem)["out0"], default)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float32_tables_of_low_precision_tokens(dtype: torch.dtype) -> None:
    problem = make_pooling_attention((3, 4, 5), (3, 2, 5), dtype=dtype, table_dtype=torch.float32)
    check(problem)
    results = evaluate(problem)
    assert all(results[f"d_{name}"].dtype == tensor.dtype for name, tensor in problem.leaves.items())


def test_without_tables_it_is_scaled_dot_product_attention() -> None:
    problem = make_pooling_attention((2, 5, 6), (2, 3, 3), rel_pos="")
    q, k, v = (tensor.unflatten(-1, (2, 8)).transpose(1, 2) for tensor in problem.leaves.values())
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(native(problem)[0], expected, rtol=1e-5, atol=1e-6)


def test_the_prefix_has_no_relative_position() -> None:
    """Neither its own row nor what others give to it depends on a table."""
    problem = make_pooling_attention((2, 3, 4), (1, 3, 2), num_prefix=2)
    expected = native(problem)[0]
    for name in ("rel_pos_t", "rel_pos_h", "rel_pos_w"):
        problem.leaves[name] = problem.leaves[name] * -30
    changed = native(problem)[0]
    assert torch.equal(changed[:, :2], expected[:, :2])
    assert not torch.equal(changed[:, 2:], expected[:, 2:])


@pytest.mark.parametrize("part", ["q", "k", "v", "grad_out", "rel_pos_h"])
@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_what_is_not_finite_stays_in_its_clip_and_head(part: str, value: float, dtype: torch.dtype) -> None:
    problem = make_pooling_attention((2, 3, 4), (2, 3, 2), dtype=dtype, residual=True)
    clean = evaluate(problem)
    if part.startswith("rel"):
        problem.leaves[part][2, 0] = value
        assert not evaluate(problem)["out0"].isfinite().all()
        return
    tensor = problem.grads_out[0] if part == "grad_out" else problem.leaves[part]
    tensor[0, 5, 0] = value
    poisoned = evaluate(problem)
    assert not torch.cat([poisoned[name].flatten() for name in ("out0", "d_q", "d_k", "d_v")]).isfinite().all()
    for name in ("out0", "d_q", "d_k", "d_v"):
        assert torch.equal(poisoned[name][1], clean[name][1])
        assert torch.equal(poisoned[name][0, :, 8:], clean[name][0, :, 8:])


@every_dtype
@pytest.mark.parametrize("part", ["q", "k", "v", "grad_out"])
def test_nan_does_not_vanish(part: str, dtype: torch.dtype) -> None:
    problem = make_pooling_attention((1, 3, 4), (1, 3, 2), dtype=dtype, residual=True)
    tensor = problem.grads_out[0] if part == "grad_out" else problem.leaves[part]
    tensor[0, 5, 0] = math.nan
    check(problem)


def test_gradients_that_float16_cannot_hold_are_infinite() -> None:
    """A gradient scaler looks for infinities to lower its scale."""
    problem = make_pooling_attention((1, 1, 4), (1, 1, 4), dtype=torch.float16, num_prefix=0)
    problem.grads_out[0].fill_(6e4)
    d_v = evaluate(problem)["d_v"]
    assert (d_v.isfinite() | (d_v == math.inf)).all()
    assert d_v.isinf().any()


def test_more_clips_and_heads_than_a_launch_dimension_holds() -> None:
    if EMULATED:
        pytest.skip("70,000 groups")
    problem = make_pooling_attention((1, 1, 2), (1, 1, 2), batch=35_000, num_prefix=0)
    check(problem)
    assert problem.tokens.device.type == DEVICE.type


def rounded_differently(q_size: int, k_size: int) -> bool:
    """Whether the distances of a pair of sizes depend on the order in which floats are multiplied and added."""
    q_step, k_step = max(k_size / q_size, 1.0), max(q_size / k_size, 1.0)
    q, k = torch.arange(q_size)[:, None], torch.arange(k_size)
    return not torch.equal((q * q_step - (k + (1.0 - k_size)) * k_step).long(), reference.relative_rows(q_size, k_size))


PAIRS = [pair for pair in product(range(1, 65), repeat=2) if rounded_differently(*pair)] + [(78, 10), (10, 78)]


@pytest.mark.parametrize("part", thinned(range(8), 0))
def test_rows_of_the_tables_are_rounded_as_the_published_weights_were(part: int) -> None:
    """Every row has a score of its own, so that a wrong row is a wrong result."""
    for q_size, k_size in PAIRS[-3:] if EMULATED else PAIRS[part::8]:
        settings = {"rel_pos": "w", "num_prefix": 0, "num_heads": 1, "batch": 1}
        problem = make_pooling_attention((1, 1, q_size), (1, 1, k_size), **settings)
        problem.leaves["q"].fill_(1)
        problem.leaves["k"].zero_()
        torch.testing.assert_close(native(problem), plain(problem), rtol=1e-4, atol=1e-4)
