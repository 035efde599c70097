"""The fewest bytes that an operator moves, read off its schema and its tensors."""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

__all__ = ["bytes_of", "is_free", "traffic"]

# Operators that make a tensor or another view of one without touching its elements, and do not say so in their schema.
_FREE = {
    "aten::_reshape_alias", "aten::_unsafe_view", "aten::detach_", "aten::empty", "aten::empty_like",
    "aten::empty_strided", "aten::lift_fresh", "aten::new_empty", "aten::new_empty_strided", "aten::requires_grad_",
    "aten::resize_", "aten::set_", "aten::t_", "aten::transpose_", "aten::squeeze_", "aten::unsqueeze_",
    "aten::_local_scalar_dense", "aten::is_same_size", "aten::record_stream",
}  # fmt: skip

# Operators that write their first argument without reading it.
_OVERWRITES = {"aten::copy_", "aten::fill_", "aten::zero_", "aten::normal_", "aten::uniform_"}

# Operators that take only the shape of their first argument.
_SHAPE_ONLY = {"aten::full_like", "aten::new_full", "aten::new_ones", "aten::new_zeros", "aten::ones_like",
               "aten::rand_like", "aten::randn_like", "aten::zeros_like"}  # fmt: skip

# Operators that read as many elements of their first argument as they write.
_GATHERS = {"aten::embedding", "aten::gather", "aten::index", "aten::index_select"}


def bytes_of(value: object) -> int:
    """Bytes of the different elements of all tensors in `value`: a dimension of stride 0 repeats them."""
    return sum(_bytes(tensor) for tensor in _tensors(value))


def is_free(func: OpOverload[Any, Any]) -> bool:
    """Whether the operator moves nothing: views, and tensors that are not filled."""
    schema = func._schema
    if schema.name in _FREE:
        return True
    mutates = any(arg.alias_info is not None and arg.alias_info.is_write for arg in schema.arguments)
    aliases = [ret.alias_info is not None for ret in schema.returns]
    return not mutates and bool(aliases) and all(aliases)


def traffic(func: OpOverload[Any, Any], args: Sequence[Any], kwargs: dict[str, Any], out: object) -> tuple[int, int]:
    """Bytes read and bytes written by a call: each input once, each result once."""
    schema = func._schema
    read = written = 0
    for position, argument in enumerate(schema.arguments):
        value = args[position] if position < len(args) else kwargs.get(argument.name)
        size = bytes_of(value)
        if argument.alias_info is not None and argument.alias_info.is_write:
            written += size
            if argument.is_out or schema.name in _OVERWRITES:
                continue
        if position == 0 and schema.name in _SHAPE_ONLY:
            continue
        read += min(size, bytes_of(out)) if position == 0 and schema.name in _GATHERS else size
    results = (out,) if len(schema.returns) == 1 else tuple(out) if isinstance(out, (tuple, list)) else ()
    written += sum(
        bytes_of(result) for result, ret in zip(results, schema.returns, strict=True) if ret.alias_info is None
    )
    return read, written


def _bytes(tensor: Tensor) -> int:
    if tensor.layout != torch.strided:
        return 0
    sizes = (size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return prod(sizes) * tensor.element_size() if tensor.numel() else 0


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
