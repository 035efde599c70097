"""Rotary embedding of packed q and k as PyTorch users have it: slices, products, and everything joined again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vtfast import ops, reference
from vtfast.bench.measure import Outputs, Way
from vtfast.bench.shapes import RotaryShape
from vtfast.layers.rotary import axial_rotary, frame_rotary

# Of the result and of the gradient.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


@dataclass(frozen=True)
class Inputs:
    """The same numbers for everybody.

    Args:
        shape: the sizes.
        qkv: [B, 1 + T*H*W, 3*C].
        cos: [T or 1, H or 1, W or 1, R].
        sin: as cos.
        grad_out: as qkv.
    """

    shape: RotaryShape
    qkv: Tensor
    cos: Tensor
    sin: Tensor
    grad_out: Tensor

    @staticmethod
    def make(shape: RotaryShape, dtype: torch.dtype, device: str = "cpu") -> "Inputs":
        """Standard normal numbers, and the tables of timesformer-pytorch."""
        generator = torch.Generator(device).manual_seed(0)
        size = (shape.batch, shape.num_tokens // shape.batch, 3 * shape.channels)
        qkv, grad_out = (torch.randn(size, generator=generator, device=device).to(dtype) for _ in range(2))
        frames, height, width = shape.grid
        by_frame = shape.axes == "time"
        tables = frame_rotary(frames, shape.head_dim) if by_frame else axial_rotary(height, width, shape.head_dim)
        cos, sin = (table.to(device) for table in tables)
        return Inputs(shape, qkv, cos, sin, grad_out)


Function = Callable[..., Tensor]

_FUNCTIONS: dict[str, Function] = {
    "eager": reference.rotary_embedding,
    "compile": reference.rotary_embedding,
    "vtfast": ops.rotary_embedding,
}


def reference_outputs(shape: RotaryShape, dtype: torch.dtype, mode: str, device: str = "cpu") -> Outputs:
    """The result, and with the backward the gradient of qkv, in float64."""
    inputs = Inputs.make(shape, dtype, device)
    exact = Inputs(shape, *(x.double() for x in (inputs.qkv, inputs.cos, inputs.sin, inputs.grad_out)))
    return _run(reference.rotary_embedding, exact, mode)


def rotary_ways(
    shape: RotaryShape, dtype: torch.dtype, mode: str, names: Sequence[str], device: str = "cpu"
) -> list[Way]:
    """The ways of `names` ("eager", "compile", "vtfast") on the same numbers."""
    inputs = Inputs.make(shape, dtype, device)
    return [_way(name, inputs, mode) for name in names]


def _way(name: str, inputs: Inputs, mode: str) -> Way:
    function = _FUNCTIONS[name]
    if name == "compile":
        function = torch.compile(function, dynamic=False)
    return Way(name, lambda: _run(function, inputs, mode), lambda returned: returned)


def _run(function: Function, inputs: Inputs, mode: str) -> Outputs:
    def rotated(qkv: Tensor) -> Tensor:
        shape = inputs.shape
        return function(qkv, shape.grid, inputs.cos, inputs.sin, num_heads=shape.num_heads, num_prefix=1)

    if mode == "forward":
        with torch.no_grad():
            return (rotated(inputs.qkv),)
    qkv = inputs.qkv.detach().requires_grad_()
    out = rotated(qkv)
    return (out.detach(), *torch.autograd.grad(out, [qkv], inputs.grad_out))
