"""What `divided_attention` attends to, for looking at it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vtfast.ops._arguments import Triple, autocast, triple
from vtfast.ops.divided_attention import scheme_groups, token_mask
from vtfast.ops.rotary_embedding import rotary_embedding
from vtfast.reference import AttentionWeights, attention_weights


def divided_attention_weights(
    qkv: Tensor,  # [B, P + T*H*W, 3*C] or, without prefix, [B, T, H, W, 3*C]
    grid: int | Sequence[int],
    *,
    scheme: str,
    num_heads: int,
    num_prefix: int = 0,
    semantics: str = "official",
    frame_mask: Tensor | None = None,  # [B, T], bool
    rotary: tuple[Tensor, Tensor] | None = None,  # cos and sin, each [T or 1, H or 1, W or 1, R]
    scale: float | None = None,
) -> AttentionWeights:
    """The weights of v in the result of `divided_attention`, which takes the same arguments and checks them.

    They are computed by the reference and materialised, group by group: made for looking, not for speed.

    Returns:
        The weights, differentiable; `prefix` is None where the result leaves the prefix out.
    """
    grid, qkv = triple(grid, "grid", 1), autocast(qkv)
    block, dilation = scheme_groups(scheme, grid)
    settings: dict[str, Any] = {"num_heads": num_heads, "num_prefix": num_prefix, "scale": scale, "pad_keys": False}
    rotated = qkv
    if rotary is not None:
        rotated = rotary_embedding(qkv, grid, *rotary, num_heads=num_heads, num_prefix=num_prefix)
    key_mask = None if frame_mask is None else token_mask(frame_mask, grid)
    in_groups = settings | {
        "block": block,
        "dilation": dilation,
        "key_mask": None if scheme == "space" else key_mask,
        "prefix_keys": semantics == "lucidrains" or scheme != "time",
    }
    if semantics == "lucidrains":
        weights = attention_weights(rotated, grid, **in_groups)
        # The prefix attends to keys that are not rotated, and never to masked frames; its groups do not matter.
        alone = settings | {"block": (1, 1, 1), "key_mask": key_mask, "prefix_queries": "global"}
        return replace(weights, prefix=attention_weights(qkv, grid, **alone).prefix)
    if scheme == "time":
        return attention_weights(rotated, grid, **in_groups)
    weights = attention_weights(rotated, grid, prefix_queries="mean", **in_groups)
    if scheme == "space" and frame_mask is not None and num_prefix:
        return replace(weights, prefix=_prefix_of_frames(rotated, grid, frame_mask, settings))
    return weights


def _prefix_of_frames(
    qkv: Tensor,  # [B, P + T*H*W, 3*C]
    grid: Triple,
    frame_mask: Tensor,  # [B, T]
    settings: dict[str, Any],
) -> Tensor:  # [B, num_heads, P, P + T*H*W]
    """In the official "space", where the prefix's mean over the frames leaves some out: each frame a clip."""
    num_prefix, frames, frame = settings["num_prefix"], grid[0], (1, *grid[1:])
    prefix = qkv[:, None, :num_prefix].expand(-1, frames, -1, -1)
    packed = torch.cat([prefix, qkv[:, num_prefix:].unflatten(1, (frames, -1))], dim=2).flatten(0, 1)
    weights = attention_weights(packed, frame, block=frame, prefix_queries="mean", **settings)
    rows = weights.rows(torch.arange(num_prefix, device=qkv.device))
    share = frame_mask.to(rows.dtype) / frame_mask.sum(dim=1, keepdim=True).clamp(min=1)
    rows = rows.unflatten(0, (-1, frames)) * share[:, :, None, None, None]  # [B, T, num_heads, P, P + H*W]
    tokens = rows[..., num_prefix:].permute(0, 2, 3, 1, 4).flatten(3)
    return torch.cat([rows[..., :num_prefix].sum(dim=1), tokens], dim=-1)
