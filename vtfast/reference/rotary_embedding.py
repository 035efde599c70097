"""Rotary position embedding of packed q and k, in plain PyTorch: the specification of `vtfast.ops.rotary_embedding`."""

import torch
from torch import Tensor

Triple = tuple[int, int, int]


def rotary_embedding(
    qkv: Tensor,  # [B, P + T*H*W, 3*C] or, without prefix, [B, T, H, W, 3*C]
    grid: Triple,
    cos: Tensor,  # [T or 1, H or 1, W or 1, R]
    sin: Tensor,  # [T or 1, H or 1, W or 1, R]
    *,
    num_heads: int,
    num_prefix: int = 0,
) -> Tensor:  # as qkv
    """Same arguments, same result, as `vtfast.ops.rotary_embedding`."""
    rotated = cos.shape[-1]
    dtype = torch.float64 if qkv.dtype == torch.float64 else torch.float32
    cos, sin = (table.to(dtype).expand(*grid, rotated).flatten(0, 2)[:, None, None] for table in (cos, sin))
    tokens = qkv.flatten(1, -2).unflatten(-1, (3, num_heads, -1))  # [B, N, 3, heads, D]
    prefix, tokens = tokens[:, :num_prefix], tokens[:, num_prefix:]
    x = tokens[:, :, :2, :, :rotated].to(dtype)
    x = (x * cos + _rotate_every_two(x) * sin).to(qkv.dtype)
    qk = torch.cat([x, tokens[:, :, :2, :, rotated:]], dim=-1)
    return torch.cat([prefix, torch.cat([qk, tokens[:, :, 2:]], dim=2)], dim=1).reshape(qkv.shape)


def _rotate_every_two(
    x: Tensor,  # [..., R]
) -> Tensor:  # [..., R]
    """(a, b) -> (-b, a) of every pair of neighbours."""
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((-b, a), dim=-1).flatten(-2)
