"""Pooling of token grids, in plain PyTorch: the specification of `vtfast.ops.pool_tokens` and `pool_qkv`.

Source: Fan et al., "Multiscale Vision Transformers", 2021, section 3.1.
"""

from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

Triple = tuple[int, int, int]


class TokenPool(NamedTuple):
    """How the tokens of one tensor are pooled; see `vtfast.ops.pool_tokens` for the arguments of the same names."""

    kernel: Triple
    stride: Triple = (1, 1, 1)
    mode: str = "conv"
    weight: Tensor | None = None  # [D, 1, kt, kh, kw]
    norm_weight: Tensor | None = None  # [D]
    norm_bias: Tensor | None = None  # [D]


def pooled_grid(grid: Triple, kernel: Triple, stride: Triple) -> Triple:
    """Size of a token grid after pooling with a padding of kernel // 2 on both sides."""
    t, h, w = ((size + 2 * (k // 2) - k) // s + 1 for size, k, s in zip(grid, kernel, stride, strict=True))
    return t, h, w


def pool_tokens(
    x: Tensor,  # [B, P + T*H*W, C]
    grid: Triple,
    *,
    kernel: Triple,
    stride: Triple = (1, 1, 1),
    mode: str = "conv",
    weight: Tensor | None = None,  # [D, 1, kt, kh, kw]
    norm_weight: Tensor | None = None,  # [D]
    norm_bias: Tensor | None = None,  # [D]
    eps: float = 1e-6,
    num_heads: int = 1,
    num_prefix: int = 0,
) -> Tensor:  # [B, P + T'*H'*W', C]
    """Same arguments, same result, as `vtfast.ops.pool_tokens`."""
    heads = rearrange(x, "b n (h d) -> (b h) n d", h=num_heads)
    prefix, tokens = heads[:, :num_prefix], heads[:, num_prefix:]
    # In any other layout torch 2.13 leaves parts of a bfloat16 weight's gradient unwritten on CPUs.
    volume = rearrange(tokens, "b (t h w) d -> b d t h w", t=grid[0], h=grid[1], w=grid[2]).contiguous()
    padding = [k // 2 for k in kernel]
    if mode != "max":
        if weight is None:
            # avg_pool3d knows neither bfloat16 on CPUs nor windows that only the padding makes fit.
            weight = volume.new_full((volume.shape[1], 1, *kernel), 1 / prod(kernel))
        pooled = F.conv3d(volume, weight.to(x.dtype), None, stride, padding, groups=volume.shape[1])
    else:
        pooled = F.max_pool3d(volume, kernel, stride, padding)
    out = torch.cat([prefix, rearrange(pooled, "b d t h w -> b (t h w) d")], dim=1)
    if norm_weight is not None and norm_bias is not None:
        out = F.layer_norm(out, out.shape[-1:], norm_weight.to(out.dtype), norm_bias.to(out.dtype), eps)
    return rearrange(out, "(b h) n d -> b n (h d)", h=num_heads)


def pool_qkv(
    qkv: Tensor,  # [B, P + T*H*W, 3*C]
    grid: Triple,
    *,
    num_heads: int,
    q: TokenPool | None = None,
    k: TokenPool | None = None,
    v: TokenPool | None = None,
    eps: float = 1e-6,
    num_prefix: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:  # each [B, P + T'*H'*W', C]
    """Same arguments, same result, as `vtfast.ops.pool_qkv`."""
    parts = [
        part
        if pool is None
        else pool_tokens(part, grid, **pool._asdict(), eps=eps, num_heads=num_heads, num_prefix=num_prefix)
        for part, pool in zip(qkv.chunk(3, dim=-1), (q, k, v), strict=True)
    ]
    return parts[0], parts[1], parts[2]
