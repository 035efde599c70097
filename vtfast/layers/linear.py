"""Linear layers together with what follows them, an activation or a residual, as one product where oneDNN has it.

A plain linear layer fills its result with the bias before the product adds to it, and an activation or a residual
makes another tensor. Most of that time goes into memory pages touched for the first time. oneDNN's linear operation,
the one that torch.compile uses on CPUs, does bias, activation and residual while it writes the product.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules import module as _module

from vtfast import _library
from vtfast._backend import current_backend
from vtfast.ops._arguments import is_observed, is_ordinary

# Channels of the input from which on torch's own product in float32 is the faster: MKL's, which is made for Intel.
_DEEP = 512 if _library.processor_vendor() == "intel" else math.inf
_AVAILABLE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
_FUSED_TYPES = {torch.float32}
if _AVAILABLE and torch.ops.mkldnn._is_mkldnn_bf16_supported():
    _FUSED_TYPES.add(torch.bfloat16)


def linear(
    x: Tensor,  # [..., C]
    layer: nn.Linear,  # C to C'
    *,
    activation: str = "none",
    dropout: float = 0.0,
    residual: Tensor | None = None,  # [..., C']
) -> Tensor:  # [..., C']
    """dropout(activation(layer(x))) + residual; fused where `can_fuse` says so, but for activations to be trained.

    Args:
        x: input of the layer.
        layer: the linear layer.
        activation: "none" or "gelu" (the exact one, with erf).
        dropout: probability of dropping a value; 0 outside training is the caller's business.
        residual: added to the result, if given.

    Raises:
        ValueError: `activation` is neither.
    """
    if activation not in ("none", "gelu"):
        raise ValueError(f"activation must be none or gelu, got {activation!r}")
    fusible = dropout == 0.0 and (activation == "none" or residual is None)
    if fusible and can_fuse(x, layer, residual=residual):
        if not wants_gradient(x, layer, residual=residual):
            return fused_linear(x, layer.weight, layer.bias, activation, residual)
        if activation == "none":
            return _TrainedLinear.apply(x, residual, layer.weight, layer.bias)
    out = layer(x)
    if activation == "gelu":
        out = F.gelu(out)
    if dropout > 0.0:
        out = F.dropout(out, dropout)
    return out if residual is None else out + residual


def fused_linear(
    x: Tensor,  # [..., C]
    weight: Tensor,  # [C', C]
    bias: Tensor | None,  # [C']
    activation: str = "none",
    residual: Tensor | None = None,  # [..., C'], with no activation
) -> Tensor:  # [..., C']
    """The product with bias and activation or residual, without autograd; for what `can_fuse` accepts.

    It is oneDNN's, but for deep products in float32 on Intel's processors: there torch's own is up to 12 % faster, and
    outweighs the pass over the result that a residual then costs; an activation costs more. On AMD's, oneDNN's is 5 to
    20 % faster whatever the depth.
    """
    if activation == "none" and weight.dtype == torch.float32 and weight.shape[1] >= _DEEP:
        out = F.linear(x, weight, bias)
        return out if residual is None else out.add_(residual)
    product = torch.ops.mkldnn._linear_pointwise
    if residual is None:
        return product(x, weight, bias, activation, [], "none")
    return product.binary(x, residual, weight, bias, "add")


class _TrainedLinear(torch.autograd.Function):
    """`fused_linear` with its gradients; that of the input is the same kind of product."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,  # [..., C]
        residual: Tensor | None,  # [..., C']
        weight: Tensor,  # [C', C]
        bias: Tensor | None,  # [C']
    ) -> Tensor:  # [..., C']
        ctx.save_for_backward(x, weight)
        return fused_linear(x, weight, bias, "none", residual)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        d_out: Tensor,  # [..., C']
    ) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wants_x, wants_residual, wants_weight, wants_bias = ctx.needs_input_grad
        rows = d_out.flatten(0, -2)  # [N, C']
        d_x = fused_linear(d_out.contiguous(), weight.t(), None, "none", None) if wants_x else None
        d_weight = rows.t() @ x.flatten(0, -2) if wants_weight else None
        return d_x, d_out if wants_residual else None, d_weight, rows.sum(0) if wants_bias else None


def can_fuse(
    x: Tensor,  # [..., C]
    *layers: nn.Linear,
    residual: Tensor | None = None,  # [..., C']
) -> bool:
    """Whether `fused_linear` computes these layers: dense CPU tensors of one dtype, float32 or bfloat16.

    Whatever looks into the computation sees plain PyTorch: hooks on the layers, tracing and compilation, function
    transforms, dispatch modes (FLOP counters, fake tensors), and `vtfast.use_backend("reference")`.
    """
    if torch.compiler.is_compiling() or not _AVAILABLE or current_backend() == "reference":
        return False
    if not all(map(_is_bare, layers)) or is_observed():
        return False
    tensors = (x, residual, *(tensor for layer in layers for tensor in (layer.weight, layer.bias)))
    return (
        x.dtype in _FUSED_TYPES
        and x.numel() > 0
        and (not torch.is_autocast_enabled("cpu") or torch.get_autocast_dtype("cpu") == x.dtype)
        and all(_is_dense(tensor) and tensor.dtype == x.dtype for tensor in tensors if tensor is not None)
        and (residual is None or residual.shape == (*x.shape[:-1], layers[-1].out_features))
    )


def wants_gradient(x: Tensor, *layers: nn.Linear, residual: Tensor | None = None) -> bool:
    """Whether autograd has to record these layers."""
    parameters = (parameter for layer in layers for parameter in layer.parameters())
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, residual, *parameters))


def _is_dense(tensor: Tensor) -> bool:
    """A contiguous tensor in CPU memory, and no subclass, which may mean something else by a product."""
    dense = is_ordinary(tensor) and tensor.device.type == "cpu" and tensor.layout == torch.strided
    return dense and tensor.is_contiguous()


def _is_bare(layer: nn.Linear) -> bool:
    """A linear layer that nobody replaced, patched or hooked."""
    hooks = (
        layer._forward_pre_hooks,
        layer._forward_hooks,
        layer._backward_pre_hooks,
        layer._backward_hooks,
        _module._global_forward_pre_hooks,
        _module._global_forward_hooks,
        _module._global_backward_pre_hooks,
        _module._global_backward_hooks,
    )
    return type(layer) is nn.Linear and "forward" not in vars(layer) and not any(hooks)
