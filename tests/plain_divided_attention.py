"""Divided attention in plain PyTorch, group by group, and the comparison of the operation with it."""

from collections import defaultdict
from dataclasses import replace
from itertools import groupby, product
from typing import Any

import torch
import torch.nn.functional as F
from attention_check import Problem, Triple, check, evaluate, make_problem
from einops import rearrange, repeat
from target import DEVICE
from torch import Tensor

import vtfast
from vtfast import ops

HEADS = 2

# What a group is, where the groups of a scheme are alike: one row each.
ROWS = {
    "time": "(t h w) -> (h w) t",
    "space": "(t h w) -> t (h w)",
    "joint": "(t h w) -> 1 (t h w)",
    "width": "(t h w) -> (t h) w",
    "height": "(t h w) -> (t w) h",
}


def groups_of(scheme: str, grid: Triple) -> list[list[int]]:
    """The tokens of each group, by their number in the grid."""
    frames, height, width = grid
    if scheme in ROWS:
        numbers = torch.arange(frames * height * width)
        return rearrange(numbers, ROWS[scheme], t=frames, h=height, w=width).tolist()
    members = defaultdict(list)
    for number, (t, h, w) in enumerate(product(range(frames), range(height), range(width))):
        quarter = (h >= (height + 1) // 2, w >= (width + 1) // 2)
        members[quarter if scheme == "local" else (t % 2, h % 2, w % 2)].append(number)
    return list(members.values())


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, allowed: Tensor) -> Tensor:
    """[..., M, D], [..., N, D], [..., N, D], and [..., N] which keys are attended to -> [..., M, D]."""
    allowed = allowed[..., None, :]
    scores = (q @ k.transpose(-2, -1) * scale).masked_fill(~allowed, torch.finfo(q.dtype).min)
    return scores.softmax(dim=-1) @ v * allowed.any(dim=-1, keepdim=True)


def take(x: Tensor, slots: Tensor) -> Tensor:
    """[B, heads, slots, D] -> [B, heads, *shape of `slots`, D]."""
    return x.index_select(2, slots.flatten()).unflatten(2, slots.shape)


def rotate(x: Tensor, grid: Triple, tables: tuple[Tensor, Tensor]) -> Tensor:
    """x, [..., T*H*W, D], times cos, plus what it is with each pair (a, b) made (-b, a), times sin."""
    cos, sin = (table.expand(*grid, -1).flatten(0, 2) for table in tables)
    turned, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    a, b = rearrange(turned, "... (d two) -> two ... d", two=2)
    other = rearrange([-b, a], "two ... d -> ... (d two)")
    return torch.cat([(turned * cos + other * sin).to(x.dtype), rest], dim=-1)


def in_plain_pytorch(
    qkv: Tensor,
    grid: Triple,
    *,
    scheme: str,
    num_heads: int,
    num_prefix: int = 0,
    semantics: str = "official",
    frame_mask: Tensor | None = None,
    rotary: tuple[Tensor, Tensor] | None = None,
    scale: float | None = None,
) -> Tensor:
    """What divided attention is. Slots of a sequence: first the prefix, then the grid's tokens."""
    batch, num_tokens = qkv.shape[0], grid[0] * grid[1] * grid[2]
    q, k, v = rearrange(qkv.flatten(1, -2), "b n (s h d) -> s b h n d", s=3, h=num_heads)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if frame_mask is None:
        frame_mask = torch.ones(batch, grid[0], dtype=torch.bool, device=qkv.device)
    open_slots = F.pad(repeat(frame_mask, "b t -> b 1 (t n)", n=num_tokens // grid[0]), (num_prefix, 0), value=True)

    prefix_q, k_before_rotation = q[:, :, :num_prefix], k
    if rotary is not None:
        q, k = (torch.cat([x[:, :, :num_prefix], rotate(x[:, :, num_prefix:], grid, rotary)], dim=2) for x in (q, k))
    prefix = [] if scheme == "time" and semantics == "official" else list(range(num_prefix))
    parts, places, prefix_parts = [], [], []
    for _, alike in groupby(sorted(groups_of(scheme, grid), key=len), key=len):
        slots = [[*prefix, *(num_prefix + token for token in group)] for group in alike]
        slots = torch.tensor(slots, device=qkv.device)
        allowed = open_slots[:, :, slots] if scheme != "space" else torch.ones_like(open_slots[:, :, slots])
        keys = take(k, slots), take(v, slots), scale, allowed
        parts.append(attend(take(q, slots[:, len(prefix) :]), *keys).flatten(2, 3))
        places.append(slots[:, len(prefix) :].flatten())
        prefix_parts.append(attend(prefix_q[:, :, None], *keys))
    tokens = take(torch.cat(parts, dim=2), torch.cat(places).argsort())

    if semantics == "lucidrains":
        first = attend(prefix_q, k_before_rotation, v, scale, open_slots)
    elif scheme == "time":
        first = prefix_q[:, :, :0]
    else:
        stacked = torch.cat(prefix_parts, dim=2)  # [B, heads, groups, P, D]
        counted = frame_mask if scheme == "space" else frame_mask.new_ones(batch, stacked.shape[2])
        counted = rearrange(counted, "b g -> b 1 g 1 1")
        first = (stacked * counted).sum(dim=2) / counted.sum(dim=2).clamp(min=1)
    out = rearrange(torch.cat([first, tokens], dim=2), "b h n d -> b n (h d)")
    return out.unflatten(1, grid) if qkv.dim() == 5 else out


def make(
    scheme: str,
    semantics: str,
    grid: Triple,
    num_prefix: int,
    *,
    dtype: torch.dtype = torch.float32,
    batch: int = 2,
    **settings: Any,
) -> Problem:
    """The tensors of `make_problem`, and the settings of `divided_attention`."""
    queries = "none" if scheme == "time" and semantics == "official" else "mean"
    sizes = {"num_prefix": num_prefix, "prefix_queries": queries}
    problem = make_problem(grid, grid, dtype=dtype, batch=batch, num_heads=HEADS, bias=False, pad=False, **sizes)
    names = {"scheme": scheme, "semantics": semantics, "num_heads": HEADS, "num_prefix": num_prefix}
    return replace(problem, settings={"grid": grid, **names, **settings})


def tables_of(size: Triple, rotated: int = 8) -> tuple[Tensor, Tensor]:
    """A cos and a sin that belong together for no pair of channels, as those of timesformer-pytorch's frames."""
    angles = torch.randn(*size, rotated, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    return angles.cos(), angles.sin()


def native(key_mask: None, **arguments: Any) -> Tensor:
    """The compiled kernels, or an error. Problems carry a `key_mask`, of which these have none."""
    with vtfast.use_backend("native"):
        return ops.divided_attention(**arguments)


def plain(key_mask: None, **arguments: Any) -> Tensor:
    return in_plain_pytorch(**arguments)


def check_kernels(problem: Problem) -> None:
    check(problem, native, plain)


def check_reference(problem: Problem) -> None:
    """With the backend "reference", in float64, result and gradients are those of plain PyTorch."""

    def attention(key_mask: None, **arguments: Any) -> Tensor:
        with vtfast.use_backend("reference"):
            return ops.divided_attention(**arguments)

    torch.testing.assert_close(evaluate(attention, problem), evaluate(plain, problem))
