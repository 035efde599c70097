"""Attention of pooled queries on pooled keys, in plain PyTorch: the specification of `vtfast.ops.pooling_attention`.

Source: Li et al., "MViTv2: Improved Multiscale Vision Transformers for Classification and Detection", 2022, section
4.1.
"""

import torch
from einops import rearrange
from torch import Tensor

Triple = tuple[int, int, int]


def pooling_attention(
    q: Tensor,  # [B, P + Tq*Hq*Wq, C]
    k: Tensor,  # [B, P + Tk*Hk*Wk, C]
    v: Tensor,  # [B, P + Tk*Hk*Wk, C]
    q_grid: Triple,
    k_grid: Triple,
    *,
    num_heads: int,
    rel_pos_t: Tensor | None = None,  # [2 * max(Tq, Tk) - 1, D]
    rel_pos_h: Tensor | None = None,  # [2 * max(Hq, Hk) - 1, D]
    rel_pos_w: Tensor | None = None,  # [2 * max(Wq, Wk) - 1, D]
    residual: bool = False,
    residual_prefix: bool = False,
    num_prefix: int = 0,
    scale: float | None = None,
) -> Tensor:  # [B, P + Tq*Hq*Wq, C]
    """Same arguments, same result, as `vtfast.ops.pooling_attention`."""
    queries, keys, values = (rearrange(x, "b n (h d) -> b h n d", h=num_heads) for x in (q, k, v))
    scale = queries.shape[-1] ** -0.5 if scale is None else scale
    scores = (queries * scale) @ keys.transpose(-2, -1)
    bias = decomposed_bias(queries[:, :, num_prefix:], q_grid, k_grid, rel_pos_t, rel_pos_h, rel_pos_w)
    if bias is not None:
        # Neither the prefix nor anything's view of it has a relative position.
        scores = scores + torch.nn.functional.pad(bias, (num_prefix, 0, num_prefix, 0))
    out = rearrange(scores.softmax(dim=-1) @ values, "b h n d -> b n (h d)")
    if residual_prefix:
        return out + q
    return torch.cat([out[:, :num_prefix], out[:, num_prefix:] + q[:, num_prefix:]], dim=1) if residual else out


def decomposed_bias(
    q: Tensor,  # [B, num_heads, Tq*Hq*Wq, D]
    q_grid: Triple,
    k_grid: Triple,
    rel_pos_t: Tensor | None,  # [2 * max(Tq, Tk) - 1, D]
    rel_pos_h: Tensor | None,  # [2 * max(Hq, Hk) - 1, D]
    rel_pos_w: Tensor | None,  # [2 * max(Wq, Wk) - 1, D]
) -> Tensor | None:  # [B, num_heads, Tq*Hq*Wq, Tk*Hk*Wk]
    """Scores of the relative positions along t, h and w, from unscaled q; None without any table (equation 4)."""
    volume = q.unflatten(2, q_grid)
    equations = ("bnthwd, tkd -> bnthwk", "bnthwd, hkd -> bnthwk", "bnthwd, wkd -> bnthwk")
    total: Tensor | None = None
    for axis, table in enumerate((rel_pos_t, rel_pos_h, rel_pos_w)):
        if table is None:
            continue
        rows = relative_rows(q_grid[axis], k_grid[axis]).to(q.device)
        scores = torch.einsum(equations[axis], volume, table.to(q.dtype)[rows])  # [B, num_heads, Tq, Hq, Wq, K]
        shape = [1, 1, 1]
        shape[axis] = k_grid[axis]
        scores = scores.unflatten(-1, shape)
        total = scores if total is None else total + scores
    if total is None:
        return None
    return total.expand(*total.shape[:5], *k_grid).flatten(5).flatten(2, 4)


def relative_rows(q_size: int, k_size: int) -> Tensor:  # [q_size, k_size]
    """Which row of a table of 2 * max(q_size, k_size) - 1 relative positions a query and a key have along an axis.

    Where the sizes do not divide each other the distance is no integer, and its rounding in float32 is part of the
    published weights: this is the order of operations of SlowFast, and torchvision's differs from it.
    """
    q_step, k_step = max(k_size / q_size, 1.0), max(q_size / k_size, 1.0)
    queries, keys = torch.arange(q_size)[:, None] * q_step, torch.arange(k_size)[None, :] * k_step
    return (queries - keys + (k_size - 1) * k_step).long()
