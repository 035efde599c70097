"""Linear interpolation of learned positions along an axis."""

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_axis(
    x: Tensor,  # [..., n, ...]
    axis: int,
    size: int,
) -> Tensor:  # [..., size, ...]
    """`x` at `size` places instead of n, as `torch.nn.functional.interpolate` does it with align_corners=False.

    As a product with the matrix of the interpolation, because the gradient of `interpolate` adds in any order on a
    GPU. In float32 or wider, whatever autocast says.
    """
    if x.shape[axis] == size:
        return x
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    identity = torch.eye(x.shape[axis], dtype=dtype, device=x.device)
    matrix = F.interpolate(identity[None], size=size, mode="linear")[0]  # [n, size]
    with torch.autocast(x.device.type, enabled=False):
        resized = x.to(dtype).movedim(axis, -1) @ matrix
    return resized.movedim(-1, axis).to(x.dtype)
