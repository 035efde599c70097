"""Checks and normal forms of the arguments that several operations share."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Triple = tuple[int, int, int]

FLOAT_TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def triple(value: int | Sequence[int], name: str, minimum: int) -> Triple:
    """An int or a (T, H, W) triple of ints, each at least `minimum`, as a triple."""
    wanted = f"{name} must be an int or three ints (T, H, W), each at least {minimum}"
    values = tuple(value) if isinstance(value, (tuple, list, torch.Size)) else (value,) * 3
    if len(values) != 3 or not all(isinstance(v, (int, torch.SymInt)) and not isinstance(v, bool) for v in values):
        raise TypeError(f"{wanted}, got {value!r}")
    if any(v < minimum for v in values):
        raise ValueError(f"{wanted}, got {value!r}")
    return values[0], values[1], values[2]


def check_float_tensor(tensor: Tensor, name: str) -> None:
    """Raises TypeError unless `tensor` is a dense tensor of a floating type that the kernels know."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
    if tensor.dtype not in FLOAT_TYPES:
        wanted = ", ".join(str(dtype).removeprefix("torch.") for dtype in FLOAT_TYPES)
        raise TypeError(f"{name} must be one of {wanted}, got {str(tensor.dtype).removeprefix('torch.')}")
    if tensor.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got layout {tensor.layout}")


def check_same_device(tensor: Tensor, name: str, other: Tensor, other_name: str) -> None:
    """Raises ValueError unless both tensors live on one device."""
    if tensor.device != other.device:
        raise ValueError(f"{name} must be on the device of {other_name}, {other.device}, got {tensor.device}")


def check_tokens(x: Tensor, name: str, grid: Triple, num_heads: int, num_prefix: int) -> None:
    """Raises TypeError or ValueError unless `x` is [B, P + T*H*W, num_heads * head_dim]."""
    check_float_tensor(x, name)
    _check_num_prefix(num_prefix)
    shape, tokens = tuple(x.shape), num_prefix + grid[0] * grid[1] * grid[2]
    if x.dim() != 3 or shape[1] != tokens:
        raise ValueError(f"{name} must be [B, {tokens}, C] (num_prefix + T*H*W tokens), got shape {shape}")
    _check_num_heads(num_heads)
    if shape[-1] == 0 or shape[-1] % num_heads:
        raise ValueError(f"num_heads must divide C, the last dimension {shape[-1]} of {name}, got {num_heads}")


def check_packed(qkv: Tensor, grid: Triple, num_heads: int, num_prefix: int) -> None:
    """Raises TypeError or ValueError unless `qkv` is [B, P + T*H*W, 3*C] or, without prefix, [B, T, H, W, 3*C]."""
    check_float_tensor(qkv, "qkv")
    _check_num_prefix(num_prefix)
    shape, tokens = tuple(qkv.shape), grid[0] * grid[1] * grid[2]
    if qkv.dim() == 5 and num_prefix == 0:
        if shape[1:4] != grid:
            raise ValueError(f"qkv must be [B, T, H, W, 3*C] with (T, H, W) = grid = {grid}, got shape {shape}")
    elif qkv.dim() != 3 or shape[1] != num_prefix + tokens:
        layout = f"[B, {num_prefix + tokens}, 3*C] (num_prefix + T*H*W tokens)"
        raise ValueError(f"qkv must be {layout}{'' if num_prefix else ' or [B, T, H, W, 3*C]'}, got shape {shape}")
    _check_num_heads(num_heads)
    if shape[-1] == 0 or shape[-1] % (3 * num_heads):
        raise ValueError(f"num_heads must divide C, a third of qkv's last dimension {shape[-1]}, got {num_heads}")


def _check_num_prefix(num_prefix: int) -> None:
    if isinstance(num_prefix, bool) or not isinstance(num_prefix, int) or num_prefix < 0:
        raise ValueError(f"num_prefix must be an int of at least 0, got {num_prefix!r}")


def _check_num_heads(num_heads: int) -> None:
    if isinstance(num_heads, bool) or not isinstance(num_heads, int) or num_heads < 1:
        raise ValueError(f"num_heads must be an int of at least 1, got {num_heads!r}")


def autocast(tensor: Tensor) -> Tensor:
    """`tensor` in the dtype that the user's autocast asks for, as scaled_dot_product_attention does it."""
    device = tensor.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device) and tensor.dtype != torch.float64:
        return tensor.to(torch.get_autocast_dtype(device))
    return tensor


def fake_gradient(tensor: Tensor | None, like: Tensor) -> Tensor:
    """What a backward returns for an optional input: its gradient, or an empty tensor where it was left out."""
    return like.new_empty(0) if tensor is None else tensor.new_empty(tensor.shape)


def fold_mapped(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """A tensor under vmap with the mapped dimension, of `size`, folded into the batch; None repeats it."""
    stacked = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return stacked.flatten(0, 1)


_ordinary_types: tuple[type, ...] = (Tensor, nn.Parameter)
_unobserved = False


def is_observed() -> bool:
    """Whether this runs under a tracer, a function transform, forward-mode differentiation or a dispatch mode."""
    return not _unobserved and (
        torch._C._get_tracing_state() is not None
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
        or torch._C._len_torch_dispatch_stack() > 0
    )


def is_ordinary(tensor: Tensor) -> bool:
    """Whether a tensor is no subclass, which may mean something else by an operation."""
    return type(tensor) in _ordinary_types


@contextmanager
def as_if_unobserved(*stand_ins: type) -> Iterator[None]:
    """Lets a dispatch mode see the operations that would run without it: the cost model counts those.

    Args:
        stand_ins: subclasses of tensors that are to pass for ordinary ones, such as fake tensors.
    """
    global _ordinary_types, _unobserved
    before = _ordinary_types, _unobserved
    _ordinary_types, _unobserved = (*_ordinary_types, *stand_ins), True
    try:
        yield
    finally:
        _ordinary_types, _unobserved = before
