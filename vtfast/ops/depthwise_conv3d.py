"""Depthwise 3D convolution of channels-last tokens."""

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
    is_observed,
    triple,
)


def depthwise_conv3d(
    x: Tensor,  # [B, T, H, W, C]
    weight: Tensor,  # [C, 1, kt, kh, kw]
    bias: Tensor | None = None,  # [C]
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | None = None,
    residual: bool = False,
) -> Tensor:  # [B, T', H', W', C]
    r"""Convolves every channel of a token grid with a kernel of its own, in zero padding; adds the input if asked to.

    An axis of S tokens becomes \(S' = \lfloor (S + 2 p - k) / s \rfloor + 1\). One pass over `x`, summed in float32
    (float64 for float64) with bias and residual, and rounded once. The gradients of input, weight and bias take one
    pass each, in a fixed order.

    Args:
        x: channels last. Any view whose channels are neighbours in memory is read where it lies, such as a volume
            (B, C, T, H, W) in `torch.channels_last_3d`, permuted, or the grid's part of tokens with a cls. float32,
            bfloat16, float16 or float64.
        weight: as that of an `nn.Conv3d` with `groups=C`.
        bias: added to every token; none if None.
        stride: distance between windows along each axis, in tokens.
        padding: zeros at both ends of each axis, in tokens; half the kernel if None, which keeps the size of the grid
            for an odd kernel at stride 1.
        residual: whether `x` is added to the result, as in `x + conv(x)`; the grid must keep its size.

    Returns:
        The convolved tokens, contiguous.

    Raises:
        TypeError: an argument of another type or dtype.
        ValueError: an argument of another shape, size or device.
        RuntimeError: the backend is "native" and no kernel supports the input.

    Source: Li et al., "UniFormer: Unified Transformer for Efficient Spatiotemporal Representation Learning", 2022,
    sections 3.2 and 3.3.
    """
    _check_tensors(x, weight, bias)
    kernel = tuple(weight.shape[2:])
    stride = triple(stride, "stride", 1)
    half = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    padding = half if padding is None else triple(padding, "padding", 0)
    _check_sizes(tuple(x.shape[1:4]), kernel, stride, padding, residual)  # type: ignore[arg-type]
    x = autocast(x)
    if not use_native("depthwise_conv3d", reasons_against(x)):
        return reference.depthwise_conv3d(x, weight, bias, stride=stride, padding=padding, residual=residual)
    acc = torch.float64 if x.dtype == torch.float64 else torch.float32
    inputs = (x, weight.to(acc), None if bias is None else bias.to(acc), stride, padding, residual)
    plain = not torch.compiler.is_compiling() and not is_observed()
    out: Tensor = (_Convolution.apply if plain else torch.ops.vtfast.depthwise_conv3d.default)(*inputs)
    return out


def _check_tensors(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    check_float_tensor(x, "x")
    if x.dim() != 5 or 0 in x.shape[1:]:
        raise ValueError(f"x must be [B, T, H, W, C] with no empty dimension but B, got shape {tuple(x.shape)}")
    channels = x.shape[-1]
    check_float_tensor(weight, "weight")
    check_same_device(weight, "weight", x, "x")
    if weight.dim() != 5 or tuple(weight.shape[:2]) != (channels, 1) or 0 in weight.shape:
        raise ValueError(f"weight must be [{channels}, 1, kt, kh, kw], got shape {tuple(weight.shape)}")
    if bias is not None:
        check_float_tensor(bias, "bias")
        check_same_device(bias, "bias", x, "x")
        if tuple(bias.shape) != (channels,):
            raise ValueError(f"bias must have shape ({channels},), got {tuple(bias.shape)}")


def _check_sizes(grid: Triple, kernel: Triple, stride: Triple, padding: Triple, residual: bool) -> None:
    if any(n + 2 * p < k for n, k, p in zip(grid, kernel, padding, strict=True)):
        raise ValueError(f"padding must make a grid of {grid} at least as large as the kernel {kernel}, got {padding}")
    if not isinstance(residual, bool):
        raise TypeError(f"residual must be a bool, got {residual!r}")
    if residual and reference.convolved_grid(grid, kernel, stride, padding) != grid:
        raise ValueError(
            f"residual needs a convolution that keeps the grid {grid}, got kernel {kernel}, stride {stride} and "
            f"padding {padding}"
        )


def reasons_against(x: Tensor) -> list[str]:
    """Why the compiled kernels cannot take this input."""
    missing = _library.why_unavailable(x.device)
    reasons = [missing] if missing else []
    if x.device.type == "cuda":
        if x.dtype == torch.float64:
            reasons.append("float64 has no kernel on CUDA")
        if x.shape[-1] % 8:
            reasons.append(f"C must be a multiple of 8 on CUDA, got {x.shape[-1]}")
    return reasons


@torch.library.register_fake("vtfast::depthwise_conv3d")
def _fake_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    residual: bool,
) -> Tensor:
    grid = reference.convolved_grid(tuple(x.shape[1:4]), tuple(weight.shape[2:]), tuple(stride), tuple(padding))  # type: ignore[arg-type]
    return x.new_empty((x.shape[0], *grid, x.shape[-1]))


@torch.library.register_fake("vtfast::depthwise_conv3d_backward")
def _fake_backward(
    grad_out: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    residual: bool,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    shapes = ((x, x.shape), (weight, weight.shape), (weight, x.shape[-1:]))
    d_x, d_weight, d_bias = (
        like.new_empty(shape if want else (0,)) for (like, shape), want in zip(shapes, wanted, strict=True)
    )
    return d_x, d_weight, d_bias


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, ctx.stride, ctx.padding, ctx.residual = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    wanted = list(ctx.needs_input_grad[:3])
    gradients = torch.ops.vtfast.depthwise_conv3d_backward.default(
        grad_out, *ctx.saved_tensors, ctx.stride, ctx.padding, ctx.residual, wanted
    )
    present = (d if want else None for d, want in zip(gradients, wanted, strict=True))
    return (*present, None, None, None)


def _second_derivative(ctx: Any, *grads: Tensor | None) -> None:
    raise NotImplementedError('depthwise_conv3d has no second derivative; the backend "reference" has')


class _Convolution(torch.autograd.Function):
    """The operation with the same gradient as the registered one, and less time between the kernels.

    A small convolution takes less time than the way to a registered gradient, which goes through Python three times.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        _setup_context(ctx, inputs, inputs[0])
        with torch._C._AutoDispatchBelowAutograd():
            out: Tensor = torch.ops.vtfast.depthwise_conv3d.default(*inputs)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        return _backward(ctx, grad_out)


torch.library.register_autograd("vtfast::depthwise_conv3d", _backward, setup_context=_setup_context)
torch.library.register_autograd("vtfast::depthwise_conv3d_backward", _second_derivative)


@torch.library.register_vmap("vtfast::depthwise_conv3d")
def _vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, *args: Any) -> tuple[Tensor, int]:
    """Folds the mapped dimension into the batch."""
    if any(dim is not None for dim in in_dims[1:3]):
        raise NotImplementedError("vmap over the parameters of depthwise_conv3d is not supported: map over x")
    folded = x.movedim(in_dims[0], 0).flatten(0, 1)
    return torch.ops.vtfast.depthwise_conv3d.default(folded, *args).unflatten(0, (info.batch_size, -1)), 0
