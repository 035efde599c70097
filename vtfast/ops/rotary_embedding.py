"""Rotary position embedding of packed q and k."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vtfast import _library, reference
from vtfast._backend import use_native
from vtfast.ops._arguments import Triple, autocast, check_float_tensor, check_packed, check_same_device, triple


def rotary_embedding(
    qkv: Tensor,  # [B, P + T*H*W, 3*C] or, without prefix, [B, T, H, W, 3*C]
    grid: int | Sequence[int],
    cos: Tensor,  # [T or 1, H or 1, W or 1, R]
    sin: Tensor,  # [T or 1, H or 1, W or 1, R]
    *,
    num_heads: int,
    num_prefix: int = 0,
) -> Tensor:  # as qkv
    r"""Turns q and k of the grid's tokens: neighbouring channels \((a, b) \to (a c_0 - b s_0, b c_1 + a s_1)\).

    \(c_0, c_1\) and \(s_0, s_1\) are the entries of the tables for the two channels. Where both have the same angle
    that is a rotation. They may differ: timesformer-pytorch gives the halves of a head the same frequencies and pairs
    neighbours all the same, and its weights are trained so.

    Everything happens in one pass over `qkv`, in float32 (float64 for float64), rounded once.

    Args:
        qkv: packed projection [q | k | v], each (num_heads, head_dim), of `num_prefix` tokens (cls) and then the
            grid's tokens, t slowest, w fastest. float32, bfloat16, float16 or float64.
        grid: size of the token grid, (T, H, W).
        cos: factors of the channels themselves, for the first R channels of each head, R even; axes of size 1 hold for
            all positions.
        sin: factors of the channels' neighbours, of the same shape.
        num_heads: number of attention heads; divides C.
        num_prefix: number of tokens before the grid's.

    Returns:
        `qkv` with q and k of the grid's tokens turned. The prefix, v, and channels of a head from R on are copied.

    Raises:
        TypeError: an argument of another type or dtype.
        ValueError: an argument of another shape, size or device.
        RuntimeError: the backend is "native" and no kernel supports the input.

    Source: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021, section 3.4.2.
    """
    grid = triple(grid, "grid", 1)
    check_packed(qkv, grid, num_heads, num_prefix)
    _check_tables(cos, sin, qkv, grid, num_heads)
    qkv = autocast(qkv)
    if not use_native("rotary_embedding", _reasons_against(qkv, cos, sin, num_heads)):
        return reference.rotary_embedding(qkv, grid, cos, sin, num_heads=num_heads, num_prefix=num_prefix)
    dtype = torch.float64 if qkv.dtype == torch.float64 else torch.float32
    out: Tensor = torch.ops.vtfast.rotary_embedding.default(
        qkv.flatten(1, -2), cos.to(dtype), sin.to(dtype), grid, num_heads, num_prefix, False
    )
    return out.unflatten(1, grid) if qkv.dim() == 5 else out


def _check_tables(cos: Tensor, sin: Tensor, qkv: Tensor, grid: Triple, num_heads: int) -> None:
    for table, name in ((cos, "cos"), (sin, "sin")):
        check_float_tensor(table, name)
        check_same_device(table, name, qkv, "qkv")
    shape, head_dim = tuple(cos.shape), qkv.shape[-1] // 3 // num_heads
    fits = len(shape) == 4 and all(own == 1 or own == size for own, size in zip(shape, grid, strict=False))
    if not fits or shape[3] % 2 or not 2 <= shape[3] <= head_dim:
        wanted = f"[T or 1, H or 1, W or 1, R] with (T, H, W) = {grid} and R even, 2 to head_dim = {head_dim}"
        raise ValueError(f"cos must be {wanted}, got shape {shape}")
    if sin.shape != cos.shape:
        raise ValueError(f"sin must have the shape of cos, {shape}, got {tuple(sin.shape)}")


def _reasons_against(qkv: Tensor, cos: Tensor, sin: Tensor, num_heads: int) -> list[str]:
    """Why the compiled kernels cannot take this input."""
    missing = _library.why_unavailable(qkv.device)
    reasons = [missing] if missing else []
    if qkv.device.type == "cuda":
        head_dim = qkv.shape[-1] // 3 // num_heads
        if qkv.dtype == torch.float64:
            reasons.append("float64 has no kernel on CUDA")
        if head_dim % 8:
            reasons.append(f"head_dim must be a multiple of 8 on CUDA, got {head_dim}")
    if torch.is_grad_enabled() and (cos.requires_grad or sin.requires_grad):
        reasons.append("the kernels give cos and sin no gradient")
    return reasons


@torch.library.register_fake("vtfast::rotary_embedding")
def _fake(qkv: Tensor, *args: Any) -> Tensor:
    return qkv.new_empty(qkv.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, cos, sin, *ctx.settings = inputs
    ctx.save_for_backward(cos, sin)


def _backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    """The operation is linear in qkv: its gradient takes the transposed matrices."""
    *settings, transpose = ctx.settings
    d_qkv = torch.ops.vtfast.rotary_embedding.default(grad_out, *ctx.saved_tensors, *settings, not transpose)
    return (d_qkv, None, None, *(None for _ in ctx.settings))


torch.library.register_autograd("vtfast::rotary_embedding", _backward, setup_context=_setup_context)


@torch.library.register_vmap("vtfast::rotary_embedding")
def _vmap(
    info: Any, in_dims: tuple[Any, ...], qkv: Tensor, cos: Tensor, sin: Tensor, *settings: Any
) -> tuple[Tensor, int]:
    """Folds the mapped dimension into the batch."""
    if in_dims[1] is not None or in_dims[2] is not None:
        raise NotImplementedError("vmap over cos or sin is not supported: map over qkv")
    folded = qkv.movedim(in_dims[0], 0).flatten(0, 1)
    out = torch.ops.vtfast.rotary_embedding.default(folded, cos, sin, *settings)
    return out.unflatten(0, (info.batch_size, -1)), 0
