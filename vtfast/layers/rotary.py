"""Tables of rotary position embedding for the axes of a token grid, as timesformer-pytorch makes them.

Source: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021, section 3.2; the frequencies
are those of timesformer-pytorch.
"""

import math

import torch
from torch import Tensor


def frame_rotary(
    frames: int, head_dim: int, *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:  # cos and sin, each [T, 1, 1, head_dim]
    """Tables by the number of the frame, with the frequencies 10000 ** (-2 i / head_dim).

    As in timesformer-pytorch, whose weights are trained so, channel i and channel i + head_dim / 2 share a frequency,
    where `vtfast.ops.rotary_embedding` pairs neighbours. The two channels of a pair turn by different angles, which
    is no rotation: it keeps neither the norms of q and k nor their independence of the absolute position.

    Args:
        frames: frames of the grid.
        head_dim: channels of a head, even.
        device: of the tables.
        dtype: of the tables, float32 or float64.

    Raises:
        ValueError: head_dim is odd.
    """
    _check_head_dim(head_dim)
    angles = torch.arange(frames, device=device)[:, None] * frame_frequencies(head_dim, device).to(dtype)
    return _cos_sin(torch.cat((angles, angles), dim=-1)[:, None, None])


def axial_rotary(
    height: int,
    width: int,
    head_dim: int,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:  # cos and sin, each [1, H, W, R]
    """Tables by the place in the frame: the first half of the R = 4 * (head_dim // 4) channels by row, then by column.

    Rows and columns run from -1 to 1 whatever their number, so that a larger frame turns by the same angles in finer
    steps.

    Args:
        height: rows of the grid.
        width: columns of the grid.
        head_dim: channels of a head, even and at least 4.
        device: of the tables.
        dtype: of the tables, float32 or float64.

    Raises:
        ValueError: head_dim is odd or below 4.
    """
    _check_head_dim(head_dim)
    scales = axial_scales(head_dim, device).to(dtype)
    # As linspace, which torch.compile would compile anew for every size.
    places = (2 * torch.arange(size, device=device, dtype=dtype) / max(size - 1, 1) - 1 for size in (height, width))
    rows, columns = (place[:, None] * scales * math.pi for place in places)
    angles = torch.cat((rows[:, None].expand(-1, width, -1), columns.expand(height, -1, -1)), dim=-1)
    return _cos_sin(angles.repeat_interleave(2, dim=-1)[None])


def frame_frequencies(head_dim: int, device: torch.device | str | None = None) -> Tensor:  # [head_dim / 2]
    """Angle of each channel from one frame to the next, as float32."""
    return 1.0 / 10000.0 ** (torch.arange(0, head_dim, 2, device=device).float() / head_dim)


def axial_scales(head_dim: int, device: torch.device | str | None = None) -> Tensor:  # [head_dim // 4]
    """Half turns of each pair of channels from the middle of the frame to its edge, 1 to 5, as float32."""
    return torch.logspace(0.0, math.log2(5.0), head_dim // 4, base=2, device=device, dtype=torch.float32)


def _cos_sin(angles: Tensor) -> tuple[Tensor, Tensor]:
    return angles.cos(), angles.sin()


def _check_head_dim(head_dim: int) -> None:
    if head_dim < 4 or head_dim % 2:
        raise ValueError(f"head_dim must be even and at least 4 for rotary embedding, got {head_dim}")
