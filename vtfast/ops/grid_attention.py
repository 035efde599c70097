"""Attention inside groups of a token grid: windows, time, space, axial, strided groups. One engine serves them all."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vtfast import _library, reference
from vtfast._backend import use_native
from vtfast.ops._arguments import (
    Triple,
    autocast,
    check_float_tensor,
    check_packed,
    check_same_device,
    fake_gradient,
    fold_mapped,
    triple,
)

PREFIX_QUERIES = ("none", "global", "mean")
_BIAS_ORDERS = ("block", "window")


def grid_attention(
    qkv: Tensor,  # [B, P + T*H*W, 3*C] or, without prefix, [B, T, H, W, 3*C]
    grid: int | Sequence[int],
    *,
    num_heads: int,
    block: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    shift: int | Sequence[int] = 0,
    bias_table: Tensor | None = None,  # [(2*Wt-1)*(2*Wh-1)*(2*Ww-1), num_heads]
    bias_window: int | Sequence[int] | None = None,
    bias_order: str = "block",
    pad_qkv: Tensor | None = None,  # [3*C]
    pad_keys: bool = True,
    num_prefix: int = 0,
    prefix_keys: bool = True,
    prefix_queries: str = "none",
    key_mask: Tensor | None = None,  # [B, T*H*W] or [B, T, H, W], bool
    scale: float | None = None,
) -> Tensor:  # [B, N, C] or [B, T, H, W, C]
    r"""Softmax attention of each token with the tokens of its group: \(softmax(scale \cdot q k^T + bias) v\).

    An axis of the grid is cut into spans of `block * dilation` tokens, and a group takes every `dilation`-th token of
    a span, `block` of them. Windows are `block=(8, 7, 7)`; time `(T, 1, 1)`; space `(1, H, W)`; joint `(T, H, W)`;
    axial `(1, 1, W)` and `(1, H, 1)`; sparse local `(T, H/2, W/2)`; sparse global the same with `dilation=(1, 2, 2)`.

    Args:
        qkv: packed projection [q | k | v], each (num_heads, head_dim), of `num_prefix` tokens (cls) and then the
            grid's tokens, t slowest, w fastest. float32, bfloat16, float16 or float64.
        grid: size of the token grid, (T, H, W).
        num_heads: number of attention heads; divides C.
        block: tokens of a group along each axis. Where a span does not divide the grid, the last one is padded as
            Swin pads: with tokens whose projection is `pad_qkv`, which take part unless `pad_keys` forbids it.
        dilation: distance between neighbouring tokens of a group along each axis.
        shift: rolls the grid cyclically by so many tokens, smaller than the span; pairs that only the roll brought
            together do not attend to each other (Swin's shifted windows).
        bias_table: relative position bias, indexed as Swin does, of a window `bias_window`.
        bias_window: window that `bias_table` was made for, at least `block` along each axis; `block` if None.
        bias_order: where slot i of a block smaller than `bias_window` stands in the window: "block", at its own
            place, or "window", where slot i of the whole window stands (what all published Video Swin code does).
        pad_qkv: the projection of a zero token, which is the projection's bias; zeros if None.
        pad_keys: whether padded tokens may be attended to. If not, the last groups are just smaller.
        num_prefix: number of tokens before the grid's.
        prefix_keys: whether every group also attends to the prefix tokens, with no bias.
        prefix_queries: "none" leaves the prefix out of the result; "global" lets it attend once to every token;
            "mean" lets it attend in every group and averages over the groups.
        key_mask: True where a grid token may be attended to. A query with no key left gives zeros.
        scale: factor of the scores; head_dim ** -0.5 if None.

    Returns:
        Attention output in the layout of `qkv`, (B, P + T*H*W, C), (B, T*H*W, C) if `prefix_queries` is "none", or
        (B, T, H, W, C) for a five-dimensional `qkv`.

    Raises:
        TypeError: an argument of another type or dtype.
        ValueError: an argument of another shape, size or device.
        RuntimeError: the backend is "native" and no kernel supports the input.

    Source: Liu et al., "Video Swin Transformer", 2022, section 3.2; Bertasius et al., "Is Space-Time Attention All You
    Need for Video Understanding?", 2021, section 3.
    """
    grid, block = triple(grid, "grid", 1), triple(block, "block", 1)
    dilation, shift = triple(dilation, "dilation", 1), triple(shift, "shift", 0)
    window = block if bias_window is None else triple(bias_window, "bias_window", 1)
    check_packed(qkv, grid, num_heads, num_prefix)
    if prefix_queries not in PREFIX_QUERIES:
        raise ValueError(f"prefix_queries must be one of {', '.join(PREFIX_QUERIES)}, got {prefix_queries!r}")
    check_groups(block, dilation, shift, window)
    if bias_order not in _BIAS_ORDERS:
        raise ValueError(f"bias_order must be one of {', '.join(_BIAS_ORDERS)}, got {bias_order!r}")
    if bias_table is not None:
        _check_bias_table(bias_table, qkv, window, num_heads)
    if pad_qkv is not None:
        _check_pad_qkv(pad_qkv, qkv)
    if key_mask is not None:
        _check_key_mask(key_mask, qkv, grid)
    scale = (qkv.shape[-1] // 3 // num_heads) ** -0.5 if scale is None else float(scale)

    qkv = autocast(qkv)
    pad_qkv = None if pad_qkv is None else pad_qkv.to(qkv.dtype)
    if not use_native("grid_attention", _reasons_against(qkv, num_heads)):
        return reference.grid_attention(
            qkv, grid, num_heads=num_heads, block=block, dilation=dilation, shift=shift, bias_table=bias_table,
            bias_window=window, bias_order=bias_order, pad_qkv=pad_qkv, pad_keys=pad_keys, num_prefix=num_prefix,
            prefix_keys=prefix_keys, prefix_queries=prefix_queries, key_mask=key_mask, scale=scale,
        )  # fmt: skip
    if bias_table is not None:
        bias_table = bias_table.to(torch.float64 if qkv.dtype == torch.float64 else torch.float32)
    out, _, _ = torch.ops.vtfast.grid_attention.default(
        qkv.flatten(1, -2),
        bias_table,
        pad_qkv,
        None if key_mask is None else key_mask.flatten(1),
        grid,
        num_heads,
        block,
        dilation,
        shift,
        window,
        bias_order == "window",
        pad_keys,
        num_prefix,
        prefix_keys,
        PREFIX_QUERIES.index(prefix_queries),
        scale,
    )
    return out.unflatten(1, grid) if qkv.dim() == 5 else out


def check_groups(block: Triple, dilation: Triple, shift: Triple, bias_window: Triple) -> None:
    """Raises ValueError where a shift is larger than a span or the bias table's window smaller than a group."""
    for axis, size, b, d, s in zip("THW", bias_window, block, dilation, shift, strict=True):
        if s >= b * d:
            raise ValueError(f"shift must be smaller than block * dilation = {b * d} along {axis}, got {s}")
        if size < b:
            raise ValueError(f"bias_window must be at least block = {b} along {axis}, got {size}")


def _check_bias_table(bias_table: Tensor, qkv: Tensor, window: Triple, num_heads: int) -> None:
    check_float_tensor(bias_table, "bias_table")
    check_same_device(bias_table, "bias_table", qkv, "qkv")
    wanted = ((2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1), num_heads)
    if tuple(bias_table.shape) != wanted:
        got = tuple(bias_table.shape)
        raise ValueError(
            f"bias_table must have shape {wanted} for window {window} and num_heads {num_heads}, got {got}"
        )


def _check_pad_qkv(pad_qkv: Tensor, qkv: Tensor) -> None:
    check_float_tensor(pad_qkv, "pad_qkv")
    check_same_device(pad_qkv, "pad_qkv", qkv, "qkv")
    if tuple(pad_qkv.shape) != (qkv.shape[-1],):
        raise ValueError(f"pad_qkv must have shape ({qkv.shape[-1]},), got {tuple(pad_qkv.shape)}")


def _check_key_mask(key_mask: Tensor, qkv: Tensor, grid: Triple) -> None:
    if not isinstance(key_mask, Tensor) or key_mask.dtype != torch.bool:
        got = key_mask.dtype if isinstance(key_mask, Tensor) else type(key_mask).__name__
        raise TypeError(f"key_mask must be a bool tensor, got {got}")
    check_same_device(key_mask, "key_mask", qkv, "qkv")
    batch, tokens = qkv.shape[0], grid[0] * grid[1] * grid[2]
    if tuple(key_mask.shape) not in ((batch, tokens), (batch, *grid)):
        wanted = f"({batch}, {tokens}) or {(batch, *grid)}"
        raise ValueError(f"key_mask must have shape {wanted}, got {tuple(key_mask.shape)}")


def _reasons_against(qkv: Tensor, num_heads: int) -> list[str]:
    """Why the compiled kernels cannot take this input."""
    missing = _library.why_unavailable(qkv.device)
    reasons = [missing] if missing else []
    if qkv.device.type == "cuda":
        head_dim = qkv.shape[-1] // 3 // num_heads
        if qkv.dtype == torch.float64:
            reasons.append("float64 has no kernel on CUDA")
        if head_dim % 8 or head_dim > 128:
            reasons.append(f"head_dim must be a multiple of 8 and at most 128 on CUDA, got {head_dim}")
    return reasons


def _num_groups(grid: Sequence[int], block: Sequence[int], dilation: Sequence[int]) -> int:
    count = 1
    for size, b, d in zip(grid, block, dilation, strict=True):
        count = count * ((size + b * d - 1) // (b * d)) * d
    return count


@torch.library.register_fake("vtfast::grid_attention")
def _fake_forward(
    qkv: Tensor,
    bias_table: Tensor | None,
    pad_qkv: Tensor | None,
    key_mask: Tensor | None,
    grid: Sequence[int],
    num_heads: int,
    block: Sequence[int],
    dilation: Sequence[int],
    shift: Sequence[int],
    bias_window: Sequence[int],
    bias_by_window: bool,
    pad_keys: bool,
    num_prefix: int,
    prefix_keys: bool,
    prefix_queries: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, num_tokens, channels = qkv.shape[0], grid[0] * grid[1] * grid[2], qkv.shape[-1] // 3
    stats = torch.float64 if qkv.dtype == torch.float64 else torch.float32
    passes = 0
    if num_prefix and prefix_queries:
        passes = 1 if prefix_queries == PREFIX_QUERIES.index("global") else _num_groups(grid, block, dilation)
    out_tokens = num_tokens + num_prefix if prefix_queries else num_tokens
    return (
        qkv.new_empty((batch, out_tokens, channels)),
        qkv.new_empty((batch, num_heads, num_tokens), dtype=stats),
        qkv.new_empty((batch, passes, num_heads, num_prefix), dtype=stats),
    )


@torch.library.register_fake("vtfast::grid_attention_backward")
def _fake_backward(
    grad_out: Tensor, qkv: Tensor, bias_table: Tensor | None, pad_qkv: Tensor | None, *args: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return qkv.new_empty(qkv.shape), fake_gradient(bias_table, qkv), fake_gradient(pad_qkv, qkv)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    qkv, bias_table, pad_qkv, key_mask, *ctx.settings = inputs
    ctx.save_for_backward(qkv, bias_table, pad_qkv, key_mask, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_out: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    no_grads = (None,) * (1 + len(ctx.settings))
    if grad_out is None:
        return (None, None, None, *no_grads)
    qkv, bias_table, pad_qkv, *rest = ctx.saved_tensors
    d_qkv, d_table, d_pad = torch.ops.vtfast.grid_attention_backward.default(
        grad_out, qkv, bias_table, pad_qkv, *rest, *ctx.settings
    )
    return (d_qkv, None if bias_table is None else d_table, None if pad_qkv is None else d_pad, *no_grads)


def _second_derivative(ctx: Any, *grads: Tensor | None) -> None:
    raise NotImplementedError('grid_attention has no second derivative; the backend "reference" has')


torch.library.register_autograd("vtfast::grid_attention", _backward, setup_context=_setup_context)
torch.library.register_autograd("vtfast::grid_attention_backward", _second_derivative)


@torch.library.register_vmap("vtfast::grid_attention")
def _vmap(info: Any, in_dims: tuple[Any, ...], qkv: Tensor, *args: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """Folds the mapped dimension into the batch; a mapped table or padding would be another set of weights."""
    bias_table, pad_qkv, key_mask, *settings = args
    qkv_dim, table_dim, pad_dim, mask_dim, *_ = in_dims
    if table_dim is not None or pad_dim is not None:
        raise NotImplementedError("vmap over bias_table or pad_qkv is not supported: map over qkv and key_mask")

    mask = None if key_mask is None else fold_mapped(key_mask, mask_dim, info.batch_size)
    outputs = torch.ops.vtfast.grid_attention.default(
        fold_mapped(qkv, qkv_dim, info.batch_size), bias_table, pad_qkv, mask, *settings
    )
    return tuple(out.unflatten(0, (info.batch_size, -1)) for out in outputs), (0, 0, 0)
