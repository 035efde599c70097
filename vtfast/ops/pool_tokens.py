"""Pooling of token grids, as MViT pools queries, keys, values and the skip path."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vtfast import _library, reference
from vtfast._backend import use_native
from vtfast.ops._arguments import (
    autocast,
    check_float_tensor,
    check_same_device,
    check_tokens,
    fake_gradient,
    triple,
)

MODES = ("conv", "avg", "max")


def pool_tokens(
    x: Tensor,  # [B, P + T*H*W, C]
    grid: int | Sequence[int],
    *,
    kernel: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    mode: str = "conv",
    weight: Tensor | None = None,  # [D, 1, kt, kh, kw]
    norm_weight: Tensor | None = None,  # [D]
    norm_bias: Tensor | None = None,  # [D]
    eps: float = 1e-6,
    num_heads: int = 1,
    num_prefix: int = 0,
) -> Tensor:  # [B, P + T'*H'*W', C]
    r"""Pools the tokens of a grid with a padding of `kernel // 2` and, if asked to, normalises each head.

    Every axis of S tokens becomes \(S' = \lfloor (S + 2 \lfloor k / 2 \rfloor - k) / s \rfloor + 1\). Prefix tokens
    are not pooled, but they are normalised. One pass over `x`, in float32 (float64 for float64), rounded once.

    Args:
        x: `num_prefix` tokens (cls) and then the grid's, t slowest, w fastest; channels are (num_heads, head_dim).
            Any view whose channels are neighbours in memory is read where it lies. float32, bfloat16, float16 or
            float64.
        grid: size of the token grid, (T, H, W).
        kernel: size of the pooling window along each axis.
        stride: distance between windows along each axis.
        mode: "conv", a depthwise convolution whose weights all heads share; "avg", the mean, padding counted in as
            zeros; "max", the largest.
        weight: of the convolution, as that of an `nn.Conv3d` with `groups=head_dim`; None for the other modes.
        norm_weight: scale of a LayerNorm over head_dim; no norm if None.
        norm_bias: shift of that LayerNorm; given or left out with `norm_weight`.
        eps: of the LayerNorm.
        num_heads: number of attention heads; divides C.
        num_prefix: number of tokens before the grid's.

    Returns:
        The pooled tokens, `pooled_grid(grid, kernel, stride)` of them behind the prefix.

    Raises:
        TypeError: an argument of another type or dtype.
        ValueError: an argument of another shape, size or device.
        RuntimeError: the backend is "native" and no kernel supports the input.

    Source: Fan et al., "Multiscale Vision Transformers", 2021, section 3.1.
    """
    grid = triple(grid, "grid", 1)
    pool = reference.TokenPool(
        triple(kernel, "kernel", 1), triple(stride, "stride", 1), mode, weight, norm_weight, norm_bias
    )
    check_tokens(x, "x", grid, num_heads, num_prefix)
    check_pool(pool, "", x, x.shape[-1] // num_heads)
    x = autocast(x)
    if not use_native("pool_tokens", reasons_against(x, x.shape[-1] // num_heads)):
        return reference.pool_tokens(x, grid, **pool._asdict(), eps=eps, num_heads=num_heads, num_prefix=num_prefix)
    out: Tensor = torch.ops.vtfast.pool_tokens.default(
        x, *weights_of(pool, x.dtype), grid, num_heads, num_prefix, MODES.index(mode), pool.kernel, pool.stride, eps
    )
    return out


def check_pool(pool: reference.TokenPool, prefix: str, x: Tensor, head_dim: int) -> None:
    """Raises TypeError or ValueError unless `pool` fits tokens of `head_dim` channels; `prefix` begins its names."""
    if pool.mode not in MODES:
        raise ValueError(f"{prefix}mode must be one of {', '.join(MODES)}, got {pool.mode!r}")
    if (pool.mode == "conv") != (pool.weight is not None):
        wanted = "a tensor" if pool.mode == "conv" else "None"
        got = "None" if pool.weight is None else "a tensor"
        raise ValueError(f"{prefix}weight must be {wanted} where mode is {pool.mode!r}, got {got}")
    if (pool.norm_weight is None) != (pool.norm_bias is None):
        raise ValueError(f"{prefix}norm_weight and {prefix}norm_bias must be given together, got one of them")
    shapes = {"weight": (head_dim, 1, *pool.kernel), "norm_weight": (head_dim,), "norm_bias": (head_dim,)}
    for name, shape in shapes.items():
        tensor = getattr(pool, name)
        if tensor is None:
            continue
        check_float_tensor(tensor, prefix + name)
        check_same_device(tensor, prefix + name, x, "the tokens")
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{prefix}{name} must have shape {shape}, got {tuple(tensor.shape)}")


def weights_of(pool: reference.TokenPool, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The parameters in the type of accumulation."""
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    weight, norm_weight, norm_bias = (
        None if tensor is None else tensor.to(acc) for tensor in (pool.weight, pool.norm_weight, pool.norm_bias)
    )
    return weight, norm_weight, norm_bias


def reasons_against(x: Tensor, head_dim: int) -> list[str]:
    """Why the compiled kernels cannot take this input."""
    missing = _library.why_unavailable(x.device)
    reasons = [missing] if missing else []
    if x.device.type == "cuda":
        if x.dtype == torch.float64:
            reasons.append("float64 has no kernel on CUDA")
        if head_dim % 8 or head_dim > 1536:
            reasons.append(f"head_dim must be a multiple of 8 and at most 1536 on CUDA, got {head_dim}")
    return reasons


def num_pooled(grid: Sequence[int], kernel: Sequence[int], stride: Sequence[int]) -> int:
    """Tokens of a grid after pooling."""
    t, h, w = reference.pooled_grid(tuple(grid), tuple(kernel), tuple(stride))  # type: ignore[arg-type]
    return t * h * w


@torch.library.register_fake("vtfast::pool_tokens")
def _fake_forward(
    x: Tensor,
    weight: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    grid: Sequence[int],
    num_heads: int,
    num_prefix: int,
    mode: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    eps: float,
) -> Tensor:
    return x.new_empty((x.shape[0], num_prefix + num_pooled(grid, kernel, stride), x.shape[-1]))


@torch.library.register_fake("vtfast::pool_tokens_backward")
def _fake_backward(
    grad_out: Tensor,
    x: Tensor,
    weight: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    *settings: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    parameters = (fake_gradient(tensor, x) for tensor in (weight, norm_weight, norm_bias))
    return (x.new_empty(x.shape), *parameters)  # type: ignore[return-value]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.grid, ctx.heads, ctx.prefix, ctx.mode, ctx.kernel, ctx.stride, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    settings = (ctx.grid, ctx.heads, ctx.prefix, ctx.mode, ctx.kernel, ctx.stride, ctx.eps)
    tensors = ctx.saved_tensors
    gradients = torch.ops.vtfast.pool_tokens_backward.default(grad_out, *tensors, *settings)
    present = (None if tensor is None else d for tensor, d in zip(tensors, gradients, strict=True))
    return (*present, *(None for _ in settings))


def _second_derivative(ctx: Any, *grads: Tensor | None) -> None:
    raise NotImplementedError('pool_tokens has no second derivative; the backend "reference" has')


torch.library.register_autograd("vtfast::pool_tokens", _backward, setup_context=_setup_context)
torch.library.register_autograd("vtfast::pool_tokens_backward", _second_derivative)


@torch.library.register_vmap("vtfast::pool_tokens")
def _vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, *args: Any) -> tuple[Tensor, int]:
    """Folds the mapped dimension into the batch."""
    if any(dim is not None for dim in in_dims[1:4]):
        raise NotImplementedError("vmap over the parameters of pool_tokens is not supported: map over x")
    folded = x.movedim(in_dims[0], 0).flatten(0, 1)
    return torch.ops.vtfast.pool_tokens.default(folded, *args).unflatten(0, (info.batch_size, -1)), 0
