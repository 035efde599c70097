"""Work on some thousand tokens at a time, so that what lies between two layers stays in the caches."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def row_slices(*tensors: Tensor | None) -> Iterator[tuple[Tensor, ...]]:  # each [..., C]
    """The same rows of every tensor, enough for a matrix product to run at full speed; None stays None."""
    rows = max(2048, 1024 * torch.get_num_threads())
    tokens = next(t.numel() // t.shape[-1] for t in tensors if t is not None)
    absent = [None] * -(-tokens // rows)
    return zip(*(absent if t is None else t.flatten(0, -2).split(rows) for t in tensors), strict=True)


def by_row_slices(
    compute: Callable[..., Tensor],
    channels: int,
    x: Tensor,  # [..., C]
    *others: Tensor | None,  # each [..., C']
) -> Tensor:  # [..., channels]
    """`compute` of each slice of rows, put together again; not copied where one slice holds all."""
    slices = list(row_slices(x, *others))
    if len(slices) == 1:
        return compute(*slices[0]).view(*x.shape[:-1], channels)
    out = x.new_empty(*x.shape[:-1], channels)
    for rows, (out_rows,) in zip(slices, row_slices(out), strict=True):
        out_rows.copy_(compute(*rows))
    return out


def sum_of_slices(total: Tensor | None, term: Tensor) -> Tensor:
    """Adds one slice's term, in float32: bfloat16 would round the sum once a slice."""
    return term if total is None else total.float().add_(term)
