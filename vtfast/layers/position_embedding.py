"""Learned position embeddings at other sizes than they were learned for, as the published models resize them."""

import torch
import torch.nn.functional as F
from torch import Tensor

Pair = tuple[int, int]


def resize_places(
    embedding: Tensor,  # [1, P + h*w, C]
    old: Pair,
    new: Pair,
    mode: str = "nearest",
) -> Tensor:  # [1, P + H*W, C]
    """The embedding of every place of a grid (H, W) out of those of a grid (h, w), by a `mode` of `F.interpolate`.

    By default each is that of the nearest place. Prefix tokens (cls) stay. A grid of another shape is always resized;
    TimeSformer's code skips grids of the same number of places, whose embeddings then stand in the wrong rows.
    """
    if new == old:
        return embedding
    num_prefix = embedding.shape[1] - old[0] * old[1]
    prefix, places = embedding[:, :num_prefix], embedding[:, num_prefix:]
    image = places.unflatten(1, old).permute(0, 3, 1, 2)  # [1, C, h, w]
    return torch.cat([prefix, F.interpolate(image, size=new, mode=mode).flatten(2).transpose(1, 2)], dim=1)


def resize_sequence(
    embedding: Tensor,  # [1, P + n, C]
    count: int,
    num_prefix: int = 0,
) -> Tensor:  # [1, P + count, C]
    """The embedding of `count` frames, each that of the nearest of the n frames; prefix tokens stay.

    TimeSformer's code also resizes the places of a checkpoint like this, as if a frame were one long row.
    """
    if count == embedding.shape[1] - num_prefix:
        return embedding
    prefix, sequence = embedding[:, :num_prefix], embedding[:, num_prefix:].transpose(1, 2)
    return torch.cat([prefix, F.interpolate(sequence, size=count, mode="nearest").transpose(1, 2)], dim=1)
