"""Weights against the operation itself: where v holds the unit vectors, the output of a query is its row of weights."""

from typing import Any

import pytest
import torch
from torch import Tensor

import vtfast
from vtfast import ops
from vtfast.ops.divided_attention_weights import divided_attention_weights

GRIDS = [(2, 4, 2), (3, 1, 5)]
HEADS = 2


def unit_values(grid: tuple[int, int, int], num_prefix: int) -> Tensor:  # [2, P + T*H*W, 3*C]
    """Random q and k, and v of unit vectors, in heads of an even number of channels."""
    tokens = num_prefix + grid[0] * grid[1] * grid[2]
    channels = tokens + tokens % 2
    qkv = torch.randn(2, tokens, 3, HEADS, channels, dtype=torch.float64)
    qkv[:, :, 2] = torch.eye(tokens, channels, dtype=torch.float64)[:, None]
    return qkv.flatten(2)


def some_tables(grid: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    angles = torch.rand(*grid, 2, dtype=torch.float64)
    return angles.cos(), angles.sin()


@pytest.mark.parametrize("rotated", [False, True], ids=["plain", "rotary"])
@pytest.mark.parametrize("num_prefix", [0, 2])
@pytest.mark.parametrize("semantics", ["official", "lucidrains"])
@pytest.mark.parametrize(
    ("scheme", "masked"),
    [
        *((scheme, False) for scheme in ("time", "space", "joint", "width", "height", "local", "global")),
        *((scheme, True) for scheme in ("time", "space", "joint")),
    ],
)
def test_rows_are_what_the_output_weighs_v_with(
    scheme: str, semantics: str, num_prefix: int, masked: bool, rotated: bool
) -> None:
    for grid in GRIDS:
        qkv = unit_values(grid, num_prefix)
        settings: dict[str, Any] = {"num_heads": HEADS, "num_prefix": num_prefix, "scheme": scheme, "scale": 0.7}
        settings |= {"semantics": semantics, "rotary": some_tables(grid) if rotated else None}
        if masked:
            settings["frame_mask"] = torch.tensor([[True] * grid[0], [True, False, True][: grid[0]]])
        weights = divided_attention_weights(qkv, grid, **settings)
        tokens = qkv.shape[1]
        with vtfast.use_backend("reference"):
            out = ops.divided_attention(qkv, grid, **settings)
        expected = out.unflatten(-1, (HEADS, -1)).transpose(1, 2)[..., :tokens]
        rows = weights.rows(torch.arange(tokens - out.shape[1], tokens))
        torch.testing.assert_close(rows, expected)
        torch.testing.assert_close(rows.sum(dim=-1), torch.ones_like(rows[..., 0]))
        assert (weights.prefix is None) == (out.shape[1] < tokens or num_prefix == 0)


def test_no_map_of_the_whole_clip_is_made() -> None:
    grid = (8, 4, 4)
    weights = divided_attention_weights(torch.randn(1, 129, 12), grid, scheme="space", num_heads=2, num_prefix=1)
    assert weights.groups.shape == (1, 8, 2, 16, 17)
    assert weights.tokens.tolist() == torch.arange(128).view(8, 16).tolist()
    weights = divided_attention_weights(torch.randn(1, 129, 12), grid, scheme="time", num_heads=2, num_prefix=1)
    assert weights.groups.shape == (1, 16, 2, 8, 8)


def test_autocast_computes_in_the_dtype_of_the_operation() -> None:
    qkv = torch.randn(1, 9, 12)
    with torch.autocast("cpu", torch.bfloat16):
        weights = divided_attention_weights(qkv, (2, 2, 2), scheme="joint", num_heads=2, num_prefix=1)
        assert weights.groups.dtype == ops.joint_attention(qkv, (2, 2, 2), num_heads=2, num_prefix=1).dtype
