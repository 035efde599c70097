"""Groups of up to 40 tokens, those of attention over time and along an axis: kernels against the reference."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from attention_check import DTYPES, Problem, check, evaluate, every_dtype, make_problem, native
from target import thinned

pytestmark = [pytest.mark.requires_native, pytest.mark.every_device]

# What the tokens before the grid's do, at one size or another.
PREFIXES: list[dict[str, Any]] = [
    {},
    {"num_prefix": 1, "prefix_keys": False},
    {"num_prefix": 1, "prefix_queries": "mean"},
    {"num_prefix": 3, "prefix_queries": "global"},
    {"num_prefix": 1},
    {"num_prefix": 3, "prefix_queries": "mean"},
    {"num_prefix": 1, "prefix_queries": "global"},
    {"num_prefix": 3},
    {"num_prefix": 1, "prefix_queries": "mean", "prefix_keys": False},
]


@every_dtype
@pytest.mark.parametrize("size", thinned(range(1, 41), 3, 8, 14, 21, 34))
def test_every_size_over_time(size: int, dtype: torch.dtype) -> None:
    """Tokens of a group are a frame apart. Heads of 64 channels, the usual number, and others in turn."""
    other = (8, 24, 40, 96, 128)[(size + DTYPES.index(dtype)) % 5]
    for head_dim, prefix in ((64, PREFIXES[size % 9]), (other, PREFIXES[(size + 4) % 9])):
        settings = {"head_dim": head_dim, "bias": size % 3 == 0, "pad": False, "batch": 1, **prefix}
        check(make_problem((size, 1, 3), (size, 1, 1), dtype=dtype, **settings))


def seams(size: int, **settings: Any) -> Problem:
    shift = (0, 0, size // 2)
    return make_problem((2, 1, 2 * size + size // 2), (1, 1, size), shift=shift, num_prefix=1, **settings)


def seams_in_smaller_groups(size: int, **settings: Any) -> Problem:
    return seams(size, pad_keys=False, prefix_queries="mean", **settings)


def dilated(size: int, **settings: Any) -> Problem:
    return make_problem((2 * size + 1, 1, 2), (size, 1, 1), dilation=(2, 1, 1), bias=False, **settings)


def some_groups_closed(size: int, **settings: Any) -> Problem:
    """Of three columns, the first is closed and half of the others, in one clip everything; no prefix to turn to."""
    key_mask = torch.rand(2, size, 1, 3, generator=torch.Generator().manual_seed(size)) > 0.5
    key_mask[0, :, :, 0] = key_mask[1] = False
    prefix = {"num_prefix": 1, "prefix_keys": False, "prefix_queries": "global"}
    return make_problem((size, 1, 3), (size, 1, 1), key_mask=key_mask, bias=False, **prefix, **settings)


def some_groups_closed_but_to_the_prefix(size: int, **settings: Any) -> Problem:
    problem = some_groups_closed(size, **settings)
    problem.settings |= {"prefix_keys": True, "prefix_queries": "mean"}
    return problem


def huge_logits(size: int, **settings: Any) -> Problem:
    return make_problem((size, 1, 3), (size, 1, 1), logits=1e4, num_prefix=1, prefix_queries="mean", **settings)


def odd_heads(size: int, **settings: Any) -> Problem:
    """More groups and heads than fill whole vectors of anything."""
    return make_problem((size, 5, 3), (size, 1, 1), head_dim=24, num_heads=5, bias=False, batch=1, **settings)


KINDS: list[Callable[..., Problem]] = [
    seams,
    seams_in_smaller_groups,
    dilated,
    some_groups_closed,
    some_groups_closed_but_to_the_prefix,
    huge_logits,
    odd_heads,
]


@every_dtype
@pytest.mark.parametrize("size", thinned([1, 2, 3, 5, 8, 13, 16, 17, 31, 32, 33], 5, 17))
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_kinds_of_groups(kind: Callable[..., Problem], size: int, dtype: torch.dtype) -> None:
    check(kind(size, dtype=dtype))


@every_dtype
def test_the_heads_of_a_vision_transformer(dtype: torch.dtype) -> None:
    settings = {"num_heads": 12, "head_dim": 64, "bias": False, "pad": False, "batch": 1}
    check(make_problem((8, 2, 2), (8, 1, 1), dtype=dtype, num_prefix=1, prefix_keys=False, **settings))


@every_dtype
@pytest.mark.parametrize("size", thinned([2, 5, 16, 31], 5))
def test_a_column_does_not_depend_on_its_neighbours(size: int, dtype: torch.dtype) -> None:
    """Groups may share a vector or a tile, but nothing of one is ever in the numbers of another."""
    settings = {"bias": False, "pad": False, "batch": 1}
    together = make_problem((size, 1, 5), (size, 1, 1), dtype=dtype, **settings)
    whole = evaluate(native, together)
    together.qkv.view(size, 5, -1)[:, [0, 1, 3, 4]] *= 1e3
    alone = evaluate(native, together)
    for name in ("out", "d_qkv"):
        assert torch.equal(*(result[name].view(size, 5, -1)[:, 2] for result in (whole, alone)))
