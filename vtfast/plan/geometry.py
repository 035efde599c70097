"""How many pairs of tokens attend to each other, and how many taps of a window lie inside a grid."""

from collections.abc import Sequence
from math import prod

__all__ = ["attending_pairs", "taps_inside", "tokens_covered"]


def attending_pairs(
    grid: Sequence[int],
    block: Sequence[int],
    dilation: Sequence[int],
    shift: Sequence[int],
    pad_keys: bool,
    num_prefix: int,
    prefix_keys: bool,
    prefix_queries: str,
) -> int:
    """Pairs of query and key of one head of one clip in `grid_attention`, by the arguments of that operation.

    Queries are real tokens, keys all slots of a group that may be attended to, padding included where it takes part.
    Pairs that a shift forbids count: their scores are computed with the others.
    """
    axes = [_group_sizes(*axis) for axis in zip(grid, block, dilation, shift, strict=True)]
    tokens, groups = prod(grid), prod(len(sizes) for sizes in axes)
    if pad_keys:
        pairs, slots = tokens * prod(block), groups * prod(block)
    else:
        pairs, slots = prod(sum(size * size for size in sizes) for sizes in axes), tokens
    prefix_slots = num_prefix if prefix_keys else 0
    pairs += tokens * prefix_slots
    if prefix_queries == "global":
        pairs += num_prefix * (tokens + num_prefix)
    elif prefix_queries == "mean":
        pairs += num_prefix * (slots + groups * prefix_slots)
    return pairs


def taps_inside(
    grid: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> tuple[int, int]:
    """Windows over a grid, and the elements of all of them that lie inside it."""
    counts = [
        [max(0, min(at + k, size) - max(at, 0)) for at in range(-before, size + before - k + 1, step)]
        for size, k, step, before in zip(grid, kernel, stride, padding, strict=True)
    ]
    return prod(map(len, counts)), prod(map(sum, counts))


def tokens_covered(grid: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> int:
    """Tokens of a grid that lie in any window over it."""
    return prod(
        len({
            token
            for at in range(-before, size + before - k + 1, step)
            for token in range(max(at, 0), min(at + k, size))
        })
        for size, k, step, before in zip(grid, kernel, stride, padding, strict=True)
    )  # fmt: skip


def _group_sizes(size: int, block: int, dilation: int, shift: int) -> list[int]:
    """The real tokens of every group along one axis, which is padded to whole spans, rolled and cut."""
    span = block * dilation
    padded = -(-size // span) * span
    sizes = [0] * (padded // block)
    for position in range(size):
        rolled = (position - shift) % padded
        sizes[rolled // span * dilation + rolled % dilation] += 1
    return sizes
