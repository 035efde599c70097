"""Depthwise 3D convolution of tokens, in plain PyTorch: the specification of `vtfast.ops.depthwise_conv3d`.

Source: Li et al., "UniFormer: Unified Transformer for Efficient Spatiotemporal Representation Learning", 2022,
section 3.2 (local relation aggregation) and 3.3 (dynamic position embedding).
"""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

Triple = tuple[int, int, int]


def convolved_grid(grid: Triple, kernel: Triple, stride: Triple, padding: Triple) -> Triple:
    """Size of a token grid after a convolution."""
    t, h, w = ((n + 2 * p - k) // s + 1 for n, k, s, p in zip(grid, kernel, stride, padding, strict=True))
    return t, h, w


def depthwise_conv3d(
    x: Tensor,  # [B, T, H, W, C]
    weight: Tensor,  # [C, 1, kt, kh, kw]
    bias: Tensor | None = None,  # [C]
    *,
    stride: Triple = (1, 1, 1),
    padding: Triple | None = None,
    residual: bool = False,
) -> Tensor:  # [B, T', H', W', C]
    """Same arguments, same result, as `vtfast.ops.depthwise_conv3d`."""
    if padding is None:
        kt, kh, kw = weight.shape[2:]
        padding = (kt // 2, kh // 2, kw // 2)
    # In any other layout torch 2.13 leaves parts of a bfloat16 weight's gradient unwritten on CPUs.
    volume = rearrange(x, "b t h w c -> b c t h w").contiguous()
    bias = None if bias is None else bias.to(x.dtype)
    out = F.conv3d(volume, weight.to(x.dtype), bias, stride, padding, groups=x.shape[-1])
    out = rearrange(out, "b c t h w -> b t h w c").contiguous()
    return x + out if residual else out
