"""Pooling of packed q, k and v straight from the layout of their projection."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vtfast import reference
from vtfast._backend import use_native
from vtfast.ops._arguments import autocast, check_packed, fake_gradient, triple
from vtfast.ops.pool_tokens import MODES, check_pool, num_pooled, reasons_against, weights_of
from vtfast.reference import TokenPool

_NO_POOL = len(MODES)  # the mode of a part that is left as it is


def pool_qkv(
    qkv: Tensor,  # [B, P + T*H*W, 3*C]
    grid: int | Sequence[int],
    *,
    num_heads: int,
    q: TokenPool | None = None,
    k: TokenPool | None = None,
    v: TokenPool | None = None,
    eps: float = 1e-6,
    num_prefix: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:  # each [B, P + T'*H'*W', C]
    """Pools q, k and v as `pool_tokens` would, each in one pass; their gradients meet in one packed tensor.

    Args:
        qkv: packed projection [q | k | v], each (num_heads, head_dim), of `num_prefix` tokens (cls) and then the
            grid's tokens, t slowest, w fastest. float32, bfloat16, float16 or float64.
        grid: size of the token grid, (T, H, W).
        num_heads: number of attention heads; divides C.
        q: how queries are pooled; None leaves them as they are.
        k: the same for keys.
        v: the same for values.
        eps: of the LayerNorms.
        num_prefix: number of tokens before the grid's.

    Returns:
        q, k and v, each on its own grid; those left as they are may be views of `qkv`.

    Raises:
        TypeError: an argument of another type or dtype.
        ValueError: an argument of another shape, size or device.
        RuntimeError: the backend is "native" and no kernel supports the input.

    Source: Fan et al., "Multiscale Vision Transformers", 2021, section 3.1.
    """
    grid = triple(grid, "grid", 1)
    if isinstance(qkv, Tensor) and qkv.dim() == 5:
        raise ValueError(f"qkv must be [B, num_prefix + T*H*W, 3*C], got shape {tuple(qkv.shape)}")
    check_packed(qkv, grid, num_heads, num_prefix)
    head_dim = qkv.shape[-1] // 3 // num_heads
    pools = [_checked(pool, name, qkv, head_dim) for name, pool in (("q", q), ("k", k), ("v", v))]
    qkv = autocast(qkv)
    if not use_native("pool_qkv", reasons_against(qkv, head_dim)):
        named = dict(zip("qkv", pools, strict=True))
        return reference.pool_qkv(qkv, grid, num_heads=num_heads, **named, eps=eps, num_prefix=num_prefix)
    parts: list[Any] = []
    for pool in pools:
        parts += (None, None, None) if pool is None else weights_of(pool, qkv.dtype)
    identity = TokenPool((1, 1, 1))
    shapes = [identity if pool is None else pool for pool in pools]
    pooled = torch.ops.vtfast.pool_qkv.default(
        qkv,
        *parts,
        grid,
        num_heads,
        num_prefix,
        [_NO_POOL if pool is None else MODES.index(pool.mode) for pool in pools],
        [size for pool in shapes for size in pool.kernel],
        [size for pool in shapes for size in pool.stride],
        eps,
    )
    return pooled[0], pooled[1], pooled[2]


def _checked(pool: TokenPool | None, name: str, qkv: Tensor, head_dim: int) -> TokenPool | None:
    """The pool in normal form."""
    if pool is None:
        return None
    if not isinstance(pool, TokenPool):
        raise TypeError(f"{name} must be a TokenPool or None, got {type(pool).__name__}")
    kernel, stride = triple(pool.kernel, f"{name}.kernel", 1), triple(pool.stride, f"{name}.stride", 1)
    pool = pool._replace(kernel=kernel, stride=stride)
    check_pool(pool, f"{name}.", qkv, head_dim)
    return pool


def _sizes(
    grid: Sequence[int], num_prefix: int, modes: Sequence[int], kernels: Sequence[int], strides: Sequence[int]
) -> list[int]:
    """Tokens of q, k and v after pooling."""
    return [num_prefix + num_pooled(grid, kernels[i : i + 3], strides[i : i + 3]) for i in (0, 3, 6)]


@torch.library.register_fake("vtfast::pool_qkv")
def _fake_forward(qkv: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    *_, grid, _, num_prefix, modes, kernels, strides, _ = args
    channels = qkv.shape[-1] // 3
    q, k, v = (
        qkv.new_empty((qkv.shape[0], tokens, channels)) for tokens in _sizes(grid, num_prefix, modes, kernels, strides)
    )
    return q, k, v


@torch.library.register_fake("vtfast::pool_qkv_backward")
def _fake_backward(d_q: Tensor, d_k: Tensor, d_v: Tensor, qkv: Tensor, *args: Any) -> tuple[Tensor, ...]:
    return (qkv.new_empty(qkv.shape), *(fake_gradient(tensor, qkv) for tensor in args[:9]))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:10])
    ctx.settings = inputs[10:]


def _backward(ctx: Any, *d_pooled: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    gradients = torch.ops.vtfast.pool_qkv_backward.default(*d_pooled, *tensors, *ctx.settings)
    present = (None if tensor is None else d for tensor, d in zip(tensors, gradients, strict=True))
    return (*present, *(None for _ in ctx.settings))


def _second_derivative(ctx: Any, *grads: Tensor | None) -> None:
    raise NotImplementedError('pool_qkv has no second derivative; the backend "reference" has')


torch.library.register_autograd("vtfast::pool_qkv", _backward, setup_context=_setup_context)
torch.library.register_autograd("vtfast::pool_qkv_backward", _second_derivative)


@torch.library.register_vmap("vtfast::pool_qkv")
def _vmap(
    info: Any, in_dims: tuple[Any, ...], qkv: Tensor, *args: Any
) -> tuple[tuple[Tensor, ...], tuple[int, int, int]]:
    """Folds the mapped dimension into the batch."""
    if any(dim is not None for dim in in_dims[1:10]):
        raise NotImplementedError("vmap over the parameters of pool_qkv is not supported: map over qkv")
    pooled = torch.ops.vtfast.pool_qkv.default(qkv.movedim(in_dims[0], 0).flatten(0, 1), *args)
    return tuple(part.unflatten(0, (info.batch_size, -1)) for part in pooled), (0, 0, 0)
