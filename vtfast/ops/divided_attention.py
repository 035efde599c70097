"""Attention over space and time by named schemes: each a choice of groups for `grid_attention`."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vtfast.ops._arguments import Triple, check_packed, check_same_device, triple
from vtfast.ops.grid_attention import grid_attention
from vtfast.ops.rotary_embedding import rotary_embedding

SCHEMES = ("time", "space", "joint", "width", "height", "local", "global")
SEMANTICS = ("official", "lucidrains")


def divided_attention(
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
) -> Tensor:  # [B, P + T*H*W, C], [B, T*H*W, C] or [B, T, H, W, C]
    """Each token attends to the tokens of its group, and the prefix (cls) as the published models have it.

    Args:
        qkv: packed projection [q | k | v] of the prefix and then the grid, as for `grid_attention`.
        grid: size of the token grid, (T, H, W).
        scheme: the group of a token. "time": its place in all frames. "space": its frame. "joint": the clip. "width",
            "height": its row, its column. "local": its quarter of all frames, cut in the middle of height and width.
            "global": every second token of the clip along each axis. Odd sizes make groups that differ by one.
        num_heads: number of attention heads.
        num_prefix: number of tokens before the grid's.
        semantics: what the prefix does. "official": nothing in "time", whose result leaves it out; else it attends,
            and is attended to, in every group, and the mean over the groups is its result. "lucidrains": every group
            attends to it, and it attends once to all tokens.
        frame_mask: True where a frame is part of the clip. Other frames are not attended to in "time" and "joint" and
            by the prefix, but what they hold must be finite; tokens of such a frame still attend, in "space" to
            their own frame. Only for the schemes "time", "space" and "joint".
        rotary: tables for `rotary_embedding`, applied to q and k of the grid's tokens. With the semantics
            "lucidrains" the prefix attends to keys that are not rotated.
        scale: factor of the scores; head_dim ** -0.5 if None.

    Returns:
        Attention output in the layout of `qkv`; without the prefix for the official "time".

    Raises:
        TypeError: an argument of another type or dtype.
        ValueError: an argument of another shape, size or device, or a scheme that takes no frame_mask.

    Source: Bertasius et al., "Is Space-Time Attention All You Need for Video Understanding?", 2021, section 3 and
    figure 2, as the authors' code has it ("official"), and timesformer-pytorch ("lucidrains").
    """
    grid = triple(grid, "grid", 1)
    if scheme not in SCHEMES:
        raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, got {scheme!r}")
    if semantics not in SEMANTICS:
        raise ValueError(f"semantics must be one of {', '.join(SEMANTICS)}, got {semantics!r}")
    check_packed(qkv, grid, num_heads, num_prefix)
    if frame_mask is not None:
        _check_frame_mask(frame_mask, qkv, grid, scheme)
    if rotary is not None and not (isinstance(rotary, (tuple, list)) and len(rotary) == 2):
        got = f"{len(rotary)} values" if isinstance(rotary, (tuple, list)) else type(rotary).__name__
        raise TypeError(f"rotary must be a pair (cos, sin), got {got}")
    block, dilation = scheme_groups(scheme, grid)
    settings: dict[str, Any] = {"num_heads": num_heads, "block": block, "dilation": dilation, "pad_keys": False}
    settings |= {"num_prefix": num_prefix, "scale": scale}
    rotated = qkv
    if rotary is not None:
        rotated = rotary_embedding(qkv, grid, *rotary, num_heads=num_heads, num_prefix=num_prefix)
    # Only its own frame is in the group of a token of "space".
    key_mask = None if frame_mask is None or scheme == "space" else token_mask(frame_mask, grid)
    if num_prefix == 0:
        return grid_attention(rotated, grid, key_mask=key_mask, **settings)
    if semantics == "lucidrains":
        if rotary is None and (frame_mask is None or scheme != "space"):
            return grid_attention(rotated, grid, key_mask=key_mask, prefix_queries="global", **settings)
        tokens = grid_attention(rotated, grid, key_mask=key_mask, **settings)
        return torch.cat([_attend_to_all(qkv, grid, num_heads, num_prefix, frame_mask, scale), tokens], dim=1)
    if scheme == "time":
        return grid_attention(rotated, grid, key_mask=key_mask, prefix_keys=False, **settings)
    if scheme == "space" and frame_mask is not None:
        return _space_of_frames(rotated, grid, frame_mask, num_heads, num_prefix, scale)
    return grid_attention(rotated, grid, key_mask=key_mask, prefix_queries="mean", **settings)


def time_attention(qkv: Tensor, grid: int | Sequence[int], **settings: Any) -> Tensor:
    """`divided_attention` of each place over all frames."""
    return divided_attention(qkv, grid, scheme="time", **settings)


def space_attention(qkv: Tensor, grid: int | Sequence[int], **settings: Any) -> Tensor:
    """`divided_attention` inside each frame."""
    return divided_attention(qkv, grid, scheme="space", **settings)


def joint_attention(qkv: Tensor, grid: int | Sequence[int], **settings: Any) -> Tensor:
    """`divided_attention` over the whole clip."""
    return divided_attention(qkv, grid, scheme="joint", **settings)


def axial_attention(qkv: Tensor, grid: int | Sequence[int], *, axis: str, **settings: Any) -> Tensor:
    """`divided_attention` along one axis of the grid: "time", "height" or "width"."""
    if axis not in ("time", "height", "width"):
        raise ValueError(f"axis must be one of time, height, width, got {axis!r}")
    return divided_attention(qkv, grid, scheme=axis, **settings)


def sparse_local_attention(qkv: Tensor, grid: int | Sequence[int], **settings: Any) -> Tensor:
    """`divided_attention` inside quarters of height and width, over all frames."""
    return divided_attention(qkv, grid, scheme="local", **settings)


def sparse_global_attention(qkv: Tensor, grid: int | Sequence[int], **settings: Any) -> Tensor:
    """`divided_attention` over every second token of the clip along each axis."""
    return divided_attention(qkv, grid, scheme="global", **settings)


def scheme_groups(scheme: str, grid: Triple) -> tuple[Triple, Triple]:
    """Block and dilation of a scheme."""
    frames, height, width = grid
    if scheme == "global":
        t, h, w = (min(2, size) for size in grid)
        return (-(-frames // t), -(-height // h), -(-width // w)), (t, h, w)
    blocks = {
        "time": (frames, 1, 1),
        "space": (1, height, width),
        "joint": (frames, height, width),
        "width": (1, 1, width),
        "height": (1, height, 1),
        "local": (frames, -(-height // 2), -(-width // 2)),
    }
    return blocks[scheme], (1, 1, 1)


def _check_frame_mask(frame_mask: Tensor, qkv: Tensor, grid: Triple, scheme: str) -> None:
    if not isinstance(frame_mask, Tensor) or frame_mask.dtype != torch.bool:
        got = frame_mask.dtype if isinstance(frame_mask, Tensor) else type(frame_mask).__name__
        raise TypeError(f"frame_mask must be a bool tensor, got {got}")
    if scheme not in ("time", "space", "joint"):
        raise ValueError(f"frame_mask goes with the schemes time, space and joint, got scheme {scheme!r}")
    check_same_device(frame_mask, "frame_mask", qkv, "qkv")
    if tuple(frame_mask.shape) != (qkv.shape[0], grid[0]):
        raise ValueError(f"frame_mask must have shape {(qkv.shape[0], grid[0])}, got {tuple(frame_mask.shape)}")


def token_mask(
    frame_mask: Tensor,  # [B, T]
    grid: Triple,
) -> Tensor:  # [B, T*H*W]
    """The mask of every token's frame."""
    return frame_mask.repeat_interleave(grid[1] * grid[2], dim=1)


def _attend_to_all(
    qkv: Tensor,  # [B, P + T*H*W, 3*C]
    grid: Triple,
    num_heads: int,
    num_prefix: int,
    frame_mask: Tensor | None,  # [B, T]
    scale: float | None,
) -> Tensor:  # [B, P, C]
    """The prefix over the whole clip, for which the keys or the mask are others than those of the groups."""
    q, k, v = qkv.unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)  # [B, heads, P + T*H*W, D]
    mask = None
    if frame_mask is not None:
        mask = F.pad(token_mask(frame_mask, grid), (num_prefix, 0), value=True)[:, None, None]
    out = F.scaled_dot_product_attention(q[:, :, :num_prefix], k, v, attn_mask=mask, scale=scale)
    return out.transpose(1, 2).flatten(2)


def _space_of_frames(
    qkv: Tensor,  # [B, P + T*H*W, 3*C]
    grid: Triple,
    frame_mask: Tensor,  # [B, T]
    num_heads: int,
    num_prefix: int,
    scale: float | None,
) -> Tensor:  # [B, P + T*H*W, C]
    """The official "space" with each frame a clip of its own, so that the prefix's mean can leave frames out."""
    frames, frame = grid[0], (1, *grid[1:])
    prefix = qkv[:, None, :num_prefix].expand(-1, frames, -1, -1)
    packed = torch.cat([prefix, qkv[:, num_prefix:].unflatten(1, (frames, -1))], dim=2).flatten(0, 1)
    out = grid_attention(
        packed, frame, num_heads=num_heads, block=frame, num_prefix=num_prefix, prefix_queries="mean", scale=scale
    ).unflatten(0, (-1, frames))
    weights = frame_mask.to(out.dtype) / frame_mask.sum(dim=1, keepdim=True).clamp(min=1)
    prefix_out = torch.einsum("btpc,bt->bpc", out[:, :, :num_prefix], weights.to(out.dtype))
    return torch.cat([prefix_out, out[:, :, num_prefix:].flatten(1, 2)], dim=1)
