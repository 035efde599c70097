"""Attention of pooled queries on pooled keys and values, with decomposed relative positions."""

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
    check_same_device,
    check_tokens,
    fake_gradient,
    fold_mapped,
    triple,
)

# Of keys along the axes that have tables, together: as many as csrc/cuda/pooling_plan.cpp finds room for.
_MOST_POSITIONS = 512


def pooling_attention(
    q: Tensor,  # [B, P + Tq*Hq*Wq, C]
    k: Tensor,  # [B, P + Tk*Hk*Wk, C]
    v: Tensor,  # [B, P + Tk*Hk*Wk, C]
    q_grid: int | Sequence[int],
    k_grid: int | Sequence[int],
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
    r"""Softmax attention \(softmax(scale \cdot q k^T + q R_t + q R_h + q R_w) v\) of every query on all keys.

    R's row for a pair is chosen by the distance of query and key along an axis, both measured in steps of the finer
    of the two grids. The sum of the three is computed while the scores are: no tensor of their size exists.

    Args:
        q: queries, `num_prefix` tokens (cls) and then the grid's, t slowest, w fastest; channels are (num_heads,
            head_dim). Any view whose channels are neighbours in memory is read where it lies. float32, bfloat16,
            float16 or float64.
        k: keys, on a grid of their own.
        v: values, on the grid of the keys.
        q_grid: size of the queries' grid, (T, H, W).
        k_grid: size of the grid of keys and values, (T, H, W).
        num_heads: number of attention heads; divides C.
        rel_pos_t: relative positions along t, shared by the heads; none along this axis if None. A pair that the
            prefix takes part in has none.
        rel_pos_h: the same along h.
        rel_pos_w: the same along w.
        residual: whether the queries of the grid are added to the result (residual pooling).
        residual_prefix: whether those of the prefix are, too; implies `residual`.
        num_prefix: number of tokens before those of either grid.
        scale: factor of q k^T, not of the relative positions; head_dim ** -0.5 if None.

    Returns:
        Attention output in the layout of `q`.

    Raises:
        TypeError: an argument of another type or dtype.
        ValueError: an argument of another shape, size or device.
        RuntimeError: the backend is "native" and no kernel supports the input.

    Source: Li et al., "MViTv2: Improved Multiscale Vision Transformers for Classification and Detection", 2022,
    section 4.1; Fan et al., "Multiscale Vision Transformers", 2021, section 3.1.
    """
    q_grid, k_grid = triple(q_grid, "q_grid", 1), triple(k_grid, "k_grid", 1)
    check_tokens(q, "q", q_grid, num_heads, num_prefix)
    _check_keys(q, k, "k", k_grid, num_heads, num_prefix)
    _check_keys(q, v, "v", k_grid, num_heads, num_prefix)
    head_dim = q.shape[-1] // num_heads
    tables = (rel_pos_t, rel_pos_h, rel_pos_w)
    for axis, table in enumerate(tables):
        if table is not None:
            _check_table(table, axis, q, q_grid, k_grid, head_dim)
    scale = head_dim**-0.5 if scale is None else float(scale)
    residual = residual or residual_prefix
    q, k, v = autocast(q), autocast(k), autocast(v)
    if not use_native("pooling_attention", _reasons_against(q, head_dim, k_grid, tables)):
        return reference.pooling_attention(
            q, k, v, q_grid, k_grid, num_heads=num_heads, rel_pos_t=rel_pos_t, rel_pos_h=rel_pos_h,
            rel_pos_w=rel_pos_w, residual=residual, residual_prefix=residual_prefix, num_prefix=num_prefix, scale=scale,
        )  # fmt: skip
    acc = torch.float64 if q.dtype == torch.float64 else torch.float32
    t, h, w = (None if table is None else table.to(acc) for table in tables)
    out, _ = torch.ops.vtfast.pooling_attention.default(
        q, k, v, t, h, w, q_grid, k_grid, num_heads, num_prefix, residual, residual_prefix, scale
    )
    return out


def _check_keys(q: Tensor, x: Tensor, name: str, grid: Triple, num_heads: int, num_prefix: int) -> None:
    check_tokens(x, name, grid, num_heads, num_prefix)
    check_same_device(x, name, q, "q")
    if x.dtype != q.dtype:
        raise TypeError(f"{name} must have the dtype of q, {q.dtype}, got {x.dtype}")
    if (x.shape[0], x.shape[2]) != (q.shape[0], q.shape[2]):
        wanted = f"batch {q.shape[0]} and {q.shape[2]} channels"
        raise ValueError(f"{name} must have the {wanted} of q, got shape {tuple(x.shape)}")


def _check_table(table: Tensor, axis: int, q: Tensor, q_grid: Triple, k_grid: Triple, head_dim: int) -> None:
    name = f"rel_pos_{'thw'[axis]}"
    check_float_tensor(table, name)
    check_same_device(table, name, q, "q")
    wanted = (2 * max(q_grid[axis], k_grid[axis]) - 1, head_dim)
    if tuple(table.shape) != wanted:
        sizes = f"{q_grid[axis]} queries and {k_grid[axis]} keys along {'THW'[axis]}"
        raise ValueError(f"{name} must have shape {wanted} for {sizes}, got {tuple(table.shape)}")


def _reasons_against(
    q: Tensor, head_dim: int, k_grid: Triple, tables: tuple[Tensor | None, Tensor | None, Tensor | None]
) -> list[str]:
    """Why the compiled kernels cannot take this input."""
    missing = _library.why_unavailable(q.device)
    reasons = [missing] if missing else []
    if q.device.type == "cuda":
        if q.dtype == torch.float64:
            reasons.append("float64 has no kernel on CUDA")
        if head_dim % 8 or head_dim > 128:
            reasons.append(f"head_dim must be a multiple of 8 and at most 128 on CUDA, got {head_dim}")
        positions = sum(size for size, table in zip(k_grid, tables, strict=True) if table is not None)
        if positions > _MOST_POSITIONS:
            wanted = f"at most {_MOST_POSITIONS} along the axes with relative positions together on CUDA"
            reasons.append(f"k_grid must be {wanted}, got {positions}")
    return reasons


@torch.library.register_fake("vtfast::pooling_attention")
def _fake_forward(q: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    num_heads = args[7]
    stats = torch.float64 if q.dtype == torch.float64 else torch.float32
    return q.new_empty(q.shape), q.new_empty((q.shape[0], num_heads, q.shape[1]), dtype=stats)


@torch.library.register_fake("vtfast::pooling_attention_backward")
def _fake_backward(grad_out: Tensor, *args: Any) -> tuple[Tensor, ...]:
    tensors = args[:6]  # q, k, v and the tables
    return tuple(fake_gradient(tensor, grad_out) for tensor in tensors)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.q_grid, ctx.k_grid, ctx.heads, ctx.prefix, ctx.residual, ctx.residual_prefix, ctx.scale = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_out: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    settings = (ctx.q_grid, ctx.k_grid, ctx.heads, ctx.prefix, ctx.residual, ctx.residual_prefix, ctx.scale)
    *tensors, lse = ctx.saved_tensors
    if grad_out is None:
        return (None,) * (len(tensors) + len(settings))
    gradients = torch.ops.vtfast.pooling_attention_backward.default(grad_out, *tensors, lse, *settings)
    present = (None if tensor is None else d for tensor, d in zip(tensors, gradients, strict=True))
    return (*present, *(None for _ in settings))


def _second_derivative(ctx: Any, *grads: Tensor | None) -> None:
    raise NotImplementedError('pooling_attention has no second derivative; the backend "reference" has')


torch.library.register_autograd("vtfast::pooling_attention", _backward, setup_context=_setup_context)
torch.library.register_autograd("vtfast::pooling_attention_backward", _second_derivative)


@torch.library.register_vmap("vtfast::pooling_attention")
def _vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    """Folds the mapped dimension into the batch."""
    if any(dim is not None for dim in in_dims[3:6]):
        raise NotImplementedError("vmap over relative positions is not supported: map over q, k and v")

    tokens = (fold_mapped(tensor, dim, info.batch_size) for tensor, dim in zip(args[:3], in_dims[:3], strict=True))
    out, lse = torch.ops.vtfast.pooling_attention.default(*tokens, *args[3:])
    return (out.unflatten(0, (info.batch_size, -1)), lse.unflatten(0, (info.batch_size, -1))), (0, 0)
