"""Rotary position embedding of packed q and k."""

from collections.abc import Sequence

from torch import Tensor

from vtfast import reference
from vtfast.ops._arguments import autocast, triple


def rotary_embedding(
    qkv: Tensor,  # [B, P + T*H*W, 3*C] or, without prefix, [B, T, H, W, 3*C]
    grid: int | Sequence[int],
    cos: Tensor,  # [T or 1, H or 1, W or 1, R]
    sin: Tensor,  # [T or 1, H or 1, W or 1, R]
    *,
    num_heads: int,
    num_prefix: int = 0,
) -> Tensor:  # as qkv
    """Turns q and k of the grid's tokens: each pair (a, b) of neighbouring channels to (a cos - b sin, b cos + a sin)."""
    return reference.rotary_embedding(
        autocast(qkv), triple(grid, "grid", 1), cos, sin, num_heads=num_heads, num_prefix=num_prefix
    )
