"""Attention inside groups of a token grid, in plain PyTorch: the specification of `vtfast.ops.grid_attention`.

Windows with a cyclic shift and a relative position bias are those of Swin (Liu et al. 2021, section 3.2, and Liu et
al. 2022, "Video Swin Transformer", section 3.2); the other groups are those of TimeSformer (Bertasius et al. 2021,
figure 2).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

Triple = tuple[int, int, int]


def grid_attention(
    qkv: Tensor,  # [B, P + T*H*W, 3*C] or, without prefix, [B, T, H, W, 3*C]
    grid: Triple,
    *,
    num_heads: int,
    block: Triple,
    dilation: Triple = (1, 1, 1),
    shift: Triple = (0, 0, 0),
    bias_table: Tensor | None = None,  # [(2*Wt-1)*(2*Wh-1)*(2*Ww-1), num_heads]
    bias_window: Triple | None = None,
    bias_order: str = "block",
    pad_qkv: Tensor | None = None,  # [3*C]
    pad_keys: bool = True,
    num_prefix: int = 0,
    prefix_keys: bool = True,
    prefix_queries: str = "none",
    key_mask: Tensor | None = None,  # [B, T*H*W] or [B, T, H, W], True = may be attended to
    scale: float | None = None,
) -> Tensor:  # [B, N, C] or [B, T, H, W, C]
    """Same arguments, same result, as `vtfast.ops.grid_attention`; every step is one line of tensor algebra."""
    tokens, prefix = operands(
        qkv, grid, num_heads=num_heads, block=block, dilation=dilation, shift=shift, bias_table=bias_table,
        bias_window=bias_window, bias_order=bias_order, pad_qkv=pad_qkv, pad_keys=pad_keys, num_prefix=num_prefix,
        prefix_keys=prefix_keys, prefix_queries=prefix_queries, key_mask=key_mask, scale=scale,
    )  # fmt: skip
    out = rearrange(_attend(tokens), "b g h n d -> b g n (h d)")
    out = _roll(_merge(out, _padded_grid(grid, block, dilation), block, dilation), tuple(-s for s in shift))
    out = out[:, : grid[0], : grid[1], : grid[2]]
    if qkv.dim() == 5:
        return out
    out = out.flatten(1, 3)
    if prefix is None:
        return out
    prefix_out = _attend(prefix)
    if prefix_queries == "mean":
        prefix_out = prefix_out.mean(dim=1)
    return torch.cat([rearrange(prefix_out, "b h p d -> b p (h d)"), out], dim=1)


class Operands(NamedTuple):
    """What one softmax attention takes: softmax(scale * q k^T + bias) v over the allowed keys."""

    q: Tensor  # [..., M, D]
    k: Tensor  # [..., N, D]
    v: Tensor  # [..., N, D]
    scale: float
    allowed: Tensor  # [..., M or 1, N], bool
    bias: Tensor | None = None  # [num_heads, M, N]


def operands(
    qkv: Tensor,  # [B, P + T*H*W, 3*C] or, without prefix, [B, T, H, W, 3*C]
    grid: Triple,
    *,
    num_heads: int,
    block: Triple,
    dilation: Triple = (1, 1, 1),
    shift: Triple = (0, 0, 0),
    bias_table: Tensor | None = None,  # [(2*Wt-1)*(2*Wh-1)*(2*Ww-1), num_heads]
    bias_window: Triple | None = None,
    bias_order: str = "block",
    pad_qkv: Tensor | None = None,  # [3*C]
    pad_keys: bool = True,
    num_prefix: int = 0,
    prefix_keys: bool = True,
    prefix_queries: str = "none",
    key_mask: Tensor | None = None,  # [B, T*H*W] or [B, T, H, W]
    scale: float | None = None,
) -> tuple[Operands, Operands | None]:
    """The two attentions of `grid_attention`: of the grid's tokens, and of the prefix, None if that does not attend.

    The first is over [B, G, heads], its keys the slots of a group and then the prefix (with `prefix_keys`). The second
    is over the same for "mean", whose result is the mean over the groups, and over [B, heads] for "global".
    """
    batch, channels = qkv.shape[0], qkv.shape[-1] // 3
    scale = (channels // num_heads) ** -0.5 if scale is None else scale
    tokens = qkv.flatten(1, -2)
    prefix, tokens = tokens[:, :num_prefix], tokens[:, num_prefix:]

    if key_mask is None:
        key_mask = qkv.new_ones((batch, *grid), dtype=torch.bool)
    groups = slots(tokens.unflatten(1, grid), block, dilation, shift, pad_qkv)  # [B, G, N, 3*C]
    q, k, v = rearrange(groups, "b g n (s h d) -> s b g h n d", s=3, h=num_heads)
    # Swin pads before the projection and masks nothing: there a padded position is a token like any other.
    pad_mask = key_mask.new_full((1,), pad_keys)
    open_keys = slots(key_mask.reshape(batch, *grid, 1), block, dilation, shift, pad_mask)  # [B, G, N, 1]
    open_keys = rearrange(open_keys, "b g n 1 -> b g 1 1 n")
    pairs = open_keys & _same_region(_padded_grid(grid, block, dilation), block, dilation, shift, qkv.device)[:, None]
    bias = None
    if bias_table is not None:
        bias = relative_position_bias(bias_table, block, bias_window or block, bias_order)  # [heads, N, N]
        bias = bias.to(qkv.dtype)

    prefix_q, prefix_k, prefix_v = rearrange(prefix, "b p (s h d) -> s b h p d", s=3, h=num_heads)
    num_groups = groups.shape[1]
    if num_prefix and prefix_keys:
        k = torch.cat([k, repeat(prefix_k, "b h p d -> b g h p d", g=num_groups)], dim=-2)
        v = torch.cat([v, repeat(prefix_v, "b h p d -> b g h p d", g=num_groups)], dim=-2)
        pairs = F.pad(pairs, (0, num_prefix), value=True)
        open_keys = F.pad(open_keys, (0, num_prefix), value=True)
        bias = None if bias is None else F.pad(bias, (0, num_prefix))
    in_groups = Operands(q, k, v, scale, pairs, bias)
    if prefix_queries == "none" or num_prefix == 0:
        return in_groups, None
    if prefix_queries == "mean":
        q = repeat(prefix_q, "b h p d -> b g h p d", g=num_groups)
        return in_groups, Operands(q, k, v, scale, open_keys)
    _, k, v = rearrange(qkv, "b n (s h d) -> s b h n d", s=3, h=num_heads)
    open_keys = F.pad(key_mask.reshape(batch, *grid).flatten(1)[:, None, None], (num_prefix, 0), value=True)
    return in_groups, Operands(prefix_q, k, v, scale, open_keys)


def relative_position_bias(
    table: Tensor,  # [(2*Wt-1)*(2*Wh-1)*(2*Ww-1), num_heads]
    block: Triple,
    window: Triple,
    order: str,
) -> Tensor:  # [num_heads, N, N], N = prod(block)
    """The bias of each pair of slots of a block, out of the table of a `window` that is at least as large.

    With `order="block"` a slot stands at its own place in the block. With `order="window"` slot i stands where slot i
    of the full window does: what `relative_position_index[:N, :N]` of every published Video Swin amounts to.
    """
    num_slots = block[0] * block[1] * block[2]
    extent = block if order == "block" else window
    position = torch.cartesian_prod(*(torch.arange(size, device=table.device) for size in extent))
    position = position[:num_slots]  # [N, 3]
    offset = position[:, None] - position[None] + torch.tensor(window, device=table.device) - 1  # [N, N, 3]
    _, height, width = window
    index = (offset[..., 0] * (2 * height - 1) + offset[..., 1]) * (2 * width - 1) + offset[..., 2]
    return table[index].permute(2, 0, 1)


def probabilities(
    attention: Operands,
) -> tuple[Tensor, Tensor]:  # [..., M, N] and [..., M or 1, 1]
    """The softmax over the allowed keys, and which queries may attend to something: the others' rows mean nothing."""
    scores = (attention.q * attention.scale) @ attention.k.transpose(-2, -1)
    if attention.bias is not None:
        scores = scores + attention.bias
    some = attention.allowed.any(dim=-1, keepdim=True)
    scores = scores.masked_fill(~attention.allowed & some, float("-inf"))
    return scores.softmax(dim=-1), some


def slots(
    tokens: Tensor,  # [B, T, H, W, C]
    block: Triple,
    dilation: Triple,
    shift: Triple,
    pad: Tensor | None,  # [C], zeros if None
) -> Tensor:  # [B, G, N, C]
    """What stands in each slot of each group: the grid padded with `pad`, rolled and cut into groups."""
    t, h, w = tokens.shape[1:4]
    tokens = _pad(tokens, _padded_grid((t, h, w), block, dilation), pad)
    return _partition(_roll(tokens, shift), block, dilation)


def _attend(
    attention: Operands,
) -> Tensor:  # [..., M, D]
    """Zero for a query that may attend to nothing."""
    weights, some = probabilities(attention)
    return weights @ attention.v * some


def _padded_grid(grid: Triple, block: Triple, dilation: Triple) -> Triple:
    """The grid, each axis rounded up to whole groups."""
    t, h, w = (-(-size // (b * d)) * b * d for size, b, d in zip(grid, block, dilation, strict=True))
    return t, h, w


def _pad(
    tokens: Tensor,  # [B, T, H, W, C]
    padded_grid: Triple,
    value: Tensor | None,  # [C], zeros if None
) -> Tensor:  # [B, *padded_grid, C]
    """Appends `value` at the far end of each axis."""
    if tuple(tokens.shape[1:4]) == padded_grid:
        return tokens
    value = tokens.new_zeros(tokens.shape[-1]) if value is None else value.to(tokens.dtype)
    for axis, size in enumerate(padded_grid, start=1):
        shape = list(tokens.shape)
        shape[axis] = size - shape[axis]
        tokens = torch.cat([tokens, value.expand(shape)], dim=axis)
    return tokens


def _roll(tokens: Tensor, shift: tuple[int, ...]) -> Tensor:
    """Moves the token at position `shift` to position 0, cyclically."""
    return torch.roll(tokens, [-s for s in shift], dims=(1, 2, 3)) if any(shift) else tokens


def _partition(tokens: Tensor, block: Triple, dilation: Triple) -> Tensor:
    """[B, T, H, W, C] -> [B, G, N, C]: an axis is (whole spans, tokens of a block, offsets inside the dilation)."""
    (bt, bh, bw), (dt, dh, dw) = block, dilation
    return rearrange(
        tokens,
        "b (nt bt dt) (nh bh dh) (nw bw dw) c -> b (nt dt nh dh nw dw) (bt bh bw) c",
        bt=bt, bh=bh, bw=bw, dt=dt, dh=dh, dw=dw,
    )  # fmt: skip


def _merge(groups: Tensor, grid: Triple, block: Triple, dilation: Triple) -> Tensor:
    """The inverse of `_partition`."""
    (bt, bh, bw), (dt, dh, dw) = block, dilation
    nt, nh, nw = (size // (b * d) for size, b, d in zip(grid, block, dilation, strict=True))
    return rearrange(
        groups,
        "b (nt dt nh dh nw dw) (bt bh bw) c -> b (nt bt dt) (nh bh dh) (nw bw dw) c",
        bt=bt, bh=bh, bw=bw, dt=dt, dh=dh, dw=dw, nt=nt, nh=nh, nw=nw,
    )  # fmt: skip


def _same_region(grid: Triple, block: Triple, dilation: Triple, shift: Triple, device: torch.device) -> Tensor:
    """[G, N, N]: whether two slots of a group were neighbours before the roll (Swin's shift mask)."""
    regions = []
    for size, b, d, s in zip(grid, block, dilation, shift, strict=True):
        position = torch.arange(size, device=device)
        regions.append((position >= size - b * d).int() + (position >= size - s).int() if s else position * 0)
    t, h, w = regions
    region = t[:, None, None] * 9 + h[:, None] * 3 + w  # [T, H, W]
    slots = _partition(region[None, ..., None], block, dilation)[0, ..., 0]  # [G, N]
    return slots[:, :, None] == slots[:, None, :]
