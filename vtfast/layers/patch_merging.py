"""The step between two stages of Swin: half the height and width, twice the channels."""

import torch.nn.functional as F
from torch import Tensor, nn

from vtfast.layers.linear import linear


class PatchMerging(nn.Module):
    """Joins 2 x 2 neighbours of a frame, normalises the 4*C channels and projects them to 2*C. Time stays.

    Odd heights and widths are zero-padded at the end. Neighbours are joined in the order (0, 0), (1, 0), (0, 1),
    (1, 1) of (row, column).

    Args:
        dim: channels of the input.

    Shape:
        (B, T, H, W, C) to (B, T, ceil(H/2), ceil(W/2), 2*C).

    Source: Liu et al., "Swin Transformer", 2021, section 3.1.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(
        self,
        x: Tensor,  # [B, T, H, W, C]
    ) -> Tensor:  # [B, T, ceil(H/2), ceil(W/2), 2*C]
        return linear(self.norm(join_neighbours(x)), self.reduction)


def join_neighbours(
    x: Tensor,  # [B, T, H, W, C]
) -> Tensor:  # [B, T, ceil(H/2), ceil(W/2), 4*C]
    """The four tokens of each 2 x 2 square side by side in the channels."""
    odd_height, odd_width = x.shape[2] % 2, x.shape[3] % 2
    if odd_height or odd_width:
        x = F.pad(x, (0, 0, 0, odd_width, 0, odd_height))
    squares = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # [B, T, H/2, row, W/2, column, C]
    return squares.permute(0, 1, 2, 4, 5, 3, 6).flatten(4)
