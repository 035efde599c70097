"""The rules of PyTorch's own operators that compute: products, convolutions, attention, exponentials."""

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor
from torch._ops import OpOverload
from torch.utils.flop_counter import flop_registry

from vtfast.plan.cost import Call

__all__ = ["torch_call"]

# One transcendental function an element of the result: exp itself, erf of GELU, and what is made of either.
_EXPONENTIAL = {
    "aten::_log_softmax", "aten::_softmax", "aten::elu", "aten::erf", "aten::exp", "aten::exp_", "aten::gelu",
    "aten::gelu_backward", "aten::log", "aten::sigmoid", "aten::sigmoid_", "aten::silu", "aten::silu_",
    "aten::silu_backward", "aten::softplus", "aten::tanh", "aten::tanh_",
}  # fmt: skip
_ATTENTION = "aten::_scaled_dot_product_"


def torch_call(func: OpOverload[Any, Any], args: Sequence[Any], kwargs: dict[str, Any], out: Any, call: Call) -> Call:
    """`call`, which has a name, a dtype and its traffic, with what PyTorch's operator computes."""
    products = vector = exps = 0
    if call.name == "aten::convolution":
        flops = 2 * out.numel() * prod(args[1].shape[1:])
        products, vector = _by_groups(flops, args[8])
    elif call.name == "aten::convolution_backward":
        flops = 2 * args[0].numel() * prod(args[2].shape[1:]) * sum(args[10][:2])
        products, vector = _by_groups(flops, args[9])
    elif call.name.startswith(_ATTENTION):
        products, exps = _attention(call.name, args)
    elif call.name == "mkldnn::_linear_pointwise":
        products = 2 * args[0].numel() * _weight(args).shape[0]
        exps = out.numel() if func._overloadname == "default" and args[3] in ("gelu", "swish") else 0
    elif func.overloadpacket in flop_registry:
        products = flop_registry[func.overloadpacket](*args, **kwargs, out_val=out)
    elif call.name in _EXPONENTIAL:
        exps = (out if isinstance(out, Tensor) else out[0]).numel()
    return Call(call.name, call.dtype, products, vector, exps, call.read, call.written)


def _by_groups(flops: int, groups: int) -> tuple[int, int]:
    """Those of products and those of vectors: a convolution of single channels has no use for a matrix unit."""
    return (flops, 0) if groups == 1 else (0, flops)


def _attention(name: str, args: Sequence[Any]) -> tuple[int, int]:
    """Products and exponentials of `scaled_dot_product_attention`, by [..., N, D] queries and [..., M, D] keys."""
    backward = name.endswith("_backward")
    q, k, v = args[1:4] if backward else args[:3]
    pairs = prod(q.shape[:-1]) * k.shape[-2]
    if backward:
        return pairs * 2 * (3 * q.shape[-1] + 2 * v.shape[-1]), pairs
    return pairs * 2 * (q.shape[-1] + v.shape[-1]), pairs


def _weight(args: Sequence[Any]) -> Tensor:
    """Of oneDNN's linear operation, whose binary form has the other operand before it."""
    return args[1] if not isinstance(args[2], Tensor) or args[2].dim() == 1 else args[2]
