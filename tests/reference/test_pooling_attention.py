"""The reference's pooling attention against a statement that shares nothing with it: one pair of tokens at a time."""

import itertools
from fractions import Fraction
from math import exp
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vtfast import reference
from vtfast.reference import relative_rows

Triple = tuple[int, int, int]
HEADS, HEAD_DIM = 2, 3
AXES = "thw"


def row_of(query: int, key: int, q_size: int, k_size: int) -> int:
    """Table row of a pair, in the order of operations of the published weights: single floats, truncated."""
    q_step, k_step = (np.float32(max(ratio, 1.0)) for ratio in (k_size / q_size, q_size / k_size))
    last = np.float32((k_size - 1) * max(q_size / k_size, 1.0))
    return int(np.float32(query) * q_step - np.float32(key) * k_step + last)


def loops(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_grid: Triple,
    k_grid: Triple,
    tables: list[Tensor | None],
    *,
    num_prefix: int = 0,
    scale: float,
    residual: bool = False,
    residual_prefix: bool = False,
) -> Tensor:
    """Result, pair by pair."""
    q_places, k_places = ([None] * num_prefix + list(itertools.product(*map(range, grid))) for grid in (q_grid, k_grid))

    def score(query: Tensor, key: Tensor, here: Triple | None, there: Triple | None) -> float:
        total = scale * float(query.dot(key))
        if here is None or there is None:
            return total
        for axis, table in enumerate(tables):
            if table is not None:
                total += float(query.dot(table[row_of(here[axis], there[axis], q_grid[axis], k_grid[axis])]))
        return total

    def attend(query: Tensor, here: Triple | None, keys: Tensor, values: Tensor) -> Tensor:
        weights = [exp(score(query, key, here, there)) for key, there in zip(keys, k_places, strict=True)]
        out = sum(weight / sum(weights) * value for weight, value in zip(weights, values, strict=True))
        return out + query if residual_prefix or (residual and here is not None) else out

    heads = []
    for parts in zip(*(x.chunk(HEADS, dim=-1) for x in (q, k, v)), strict=True):
        clips = [
            torch.stack([attend(query, here, keys, values) for query, here in zip(queries, q_places, strict=True)])
            for queries, keys, values in zip(*parts, strict=True)
        ]
        heads.append(torch.stack(clips))
    return torch.cat(heads, dim=-1)


def make(q_grid: Triple, k_grid: Triple, num_prefix: int, rel_pos: str) -> tuple[list[Tensor], list[Tensor | None]]:
    """q, k and v, and the tables of t, h and w."""
    sizes = [num_prefix + torch.Size(grid).numel() for grid in (q_grid, k_grid, k_grid)]
    tokens = [torch.randn(2, size, HEADS * HEAD_DIM, dtype=torch.float64) for size in sizes]
    tables = [
        torch.randn(2 * max(pair) - 1, HEAD_DIM, dtype=torch.float64) if name in rel_pos else None
        for name, *pair in zip(AXES, q_grid, k_grid, strict=True)
    ]
    return tokens, tables


def named(tables: list[Tensor | None]) -> dict[str, Tensor | None]:
    return {f"rel_pos_{name}": table for name, table in zip(AXES, tables, strict=True)}


GRIDS: list[tuple[Triple, Triple]] = [
    ((2, 2, 3), (2, 2, 3)),
    ((2, 4, 2), (2, 2, 1)),
    ((1, 2, 2), (2, 4, 2)),
    ((2, 3, 5), (1, 2, 3)),
    ((1, 1, 7), (1, 1, 5)),
    ((1, 1, 1), (1, 2, 3)),
    ((3, 1, 2), (1, 1, 1)),
]


@pytest.mark.parametrize("rel_pos", ["", "w", "th", "thw"])
@pytest.mark.parametrize("num_prefix", [0, 1, 2])
@pytest.mark.parametrize(("q_grid", "k_grid"), GRIDS, ids=str)
def test_agrees_with_loops(q_grid: Triple, k_grid: Triple, num_prefix: int, rel_pos: str) -> None:
    tokens, tables = make(q_grid, k_grid, num_prefix, rel_pos)
    expected = loops(*tokens, q_grid, k_grid, tables, num_prefix=num_prefix, scale=HEAD_DIM**-0.5)
    out = reference.pooling_attention(*tokens, q_grid, k_grid, num_heads=HEADS, **named(tables), num_prefix=num_prefix)
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"residual": True},
        {"residual_prefix": True},
        {"residual": True, "residual_prefix": True},
        {"residual": True, "scale": 0.2},
        {"scale": -1.0},
    ],
    ids=str,
)
def test_residual_pooling_and_scale(settings: dict[str, Any]) -> None:
    """The relative positions take q as it is, whatever the scale."""
    q_grid, k_grid = (2, 2, 3), (1, 2, 2)
    tokens, tables = make(q_grid, k_grid, 1, AXES)
    expected = loops(*tokens, q_grid, k_grid, tables, num_prefix=1, **({"scale": HEAD_DIM**-0.5} | settings))
    out = reference.pooling_attention(
        *tokens, q_grid, k_grid, num_heads=HEADS, **named(tables), num_prefix=1, **settings
    )
    torch.testing.assert_close(out, expected)


def test_the_bias_of_a_pair_is_the_sum_over_the_axes() -> None:
    q_grid, k_grid = (2, 2, 3), (1, 4, 2)
    _, tables = make(q_grid, k_grid, 0, AXES)
    q = torch.randn(2, HEADS, 12, HEAD_DIM, dtype=torch.float64)
    bias = reference.decomposed_bias(q, q_grid, k_grid, *tables).unflatten(-1, k_grid).unflatten(2, q_grid)
    rows = [row_of(here, there, *sizes) for here, there, *sizes in ((1, 0, 2, 1), (0, 3, 2, 4), (2, 1, 3, 2))]
    expected = q.unflatten(2, q_grid)[:, :, 1, 0, 2] @ sum(table[row] for table, row in zip(tables, rows, strict=True))
    torch.testing.assert_close(bias[:, :, 1, 0, 2, 0, 3, 1], expected)
    assert reference.decomposed_bias(q, q_grid, k_grid, None, None, None) is None


@pytest.mark.parametrize(("q_size", "k_size"), [(8, 8), (14, 7), (56, 7), (7, 14), (28, 14), (14, 14), (1, 5), (6, 1)])
def test_rows_of_sizes_that_divide_each_other(q_size: int, k_size: int) -> None:
    """Positions in steps of the finer grid, and the smallest distance is row 0."""
    q_step, k_step = max(k_size // q_size, 1), max(q_size // k_size, 1)
    expected = [[q * q_step + (k_size - 1 - k) * k_step for k in range(k_size)] for q in range(q_size)]
    assert relative_rows(q_size, k_size).tolist() == expected


def test_rows_of_any_sizes() -> None:
    """A table of 2 * max - 1 rows suffices, and no row is farther from the exact distance than rounding takes it."""
    for q_size, k_size in itertools.product(range(1, 41), repeat=2):
        rows = relative_rows(q_size, k_size)
        assert rows.min() == 0
        assert rows.max() <= 2 * max(q_size, k_size) - 2
        q_step, k_step = max(Fraction(k_size, q_size), 1), max(Fraction(q_size, k_size), 1)
        for q, k in ((0, 0), (q_size - 1, 0), (q_size // 2, k_size // 3), (q_size - 1, k_size - 1)):
            exact = q * q_step + (k_size - 1 - k) * k_step
            assert rows[q, k] == row_of(q, k, q_size, k_size)
            assert int(rows[q, k]) in {
                int(exact + rounding) for rounding in (0, -Fraction(1, 10**4), Fraction(1, 10**4))
            }


# Sizes of MViTv2-L at 312 x 312: rows of the first and last query, from the published order of operations.
L_AT_312 = [(78, 10), (39, 20), (39, 10), (20, 10), (10, 20), (10, 10)]


@pytest.mark.parametrize(("q_size", "k_size"), L_AT_312)
def test_rows_of_a_model_whose_sizes_do_not_divide_each_other(q_size: int, k_size: int) -> None:
    expected = [[row_of(q, k, q_size, k_size) for k in range(k_size)] for q in range(q_size)]
    assert relative_rows(q_size, k_size).tolist() == expected


def torchvision_rows(q_size: int, k_size: int) -> Tensor:
    """The same distances in torchvision's order of operations."""
    q_step, k_step = max(k_size / q_size, 1.0), max(q_size / k_size, 1.0)
    q, k = torch.arange(q_size)[:, None], torch.arange(k_size)[None, :]
    return (q * q_step - (k + (1.0 - k_size)) * k_step).long()


def test_rounding_follows_the_published_weights_and_not_torchvision() -> None:
    """The two orders differ for sizes whose ratio is no integer alone, among them MViTv2-L's."""
    pairs = list(itertools.product(range(1, 65), repeat=2))
    differing = {pair for pair in pairs if not torch.equal(relative_rows(*pair), torchvision_rows(*pair))}
    assert len(differing) == 291
    assert all(max(pair) % min(pair) for pair in differing)
    assert (39, 10) in differing
    assert not torch.equal(relative_rows(78, 10), torchvision_rows(78, 10))
    assert torch.equal(relative_rows(39, 20), torchvision_rows(39, 20))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precision(dtype: torch.dtype) -> None:
    tokens, tables = make((2, 3, 5), (1, 2, 3), 1, AXES)
    low = [tensor.to(dtype) for tensor in tokens]
    settings = {"num_heads": HEADS, "residual": True, "num_prefix": 1}
    out = reference.pooling_attention(*low, (2, 3, 5), (1, 2, 3), **named(tables), **settings)
    exact = reference.pooling_attention(*(x.double() for x in low), (2, 3, 5), (1, 2, 3), **named(tables), **settings)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=30 * torch.finfo(dtype).eps)
