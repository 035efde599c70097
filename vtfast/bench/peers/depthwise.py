"""Depthwise 3D convolution as PyTorch users have it: `conv3d` in either layout of memory, of volumes and of tokens.

Volumes lie in the layout of the way before the clock starts, as do their gradients. Tokens lie channels last for
everybody: "NCDHW" copies them to a contiguous volume and its result back, as published models do; "channels_last_3d"
takes the same tokens as a view. Both then add the tokens, which vtfast does in its one pass.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from vtfast import ops, reference
from vtfast.bench.measure import Outputs, Way
from vtfast.bench.shapes import ConvolutionShape

VOLUME, TOKENS = "volume", "tokens"

# Modes besides those of peers.py: of a graph that was made before the clock starts, one gradient alone.
INPUT_GRADIENT, WEIGHT_GRADIENT = "gradient of the input", "gradients of weight and bias"

# Of results and of gradients.
TOLERANCES = {torch.float32: (1e-5, 1e-4), torch.bfloat16: (3e-2, 1e-1), torch.float16: (4e-3, 2e-2)}

Function = Callable[[Tensor, Tensor, Tensor], Tensor]

LAYOUTS = {"NCDHW": torch.contiguous_format, "channels_last_3d": torch.channels_last_3d}
NAMES = (*LAYOUTS, "vtfast")


@dataclass(frozen=True)
class Inputs:
    """The same numbers for everybody.

    Args:
        x: tokens [B, T, H, W, C], or a volume [B, C, T, H, W].
        weight: [C, 1, kt, kh, kw].
        bias: [C].
        grad_out: of the result, in its layout.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor
    grad_out: Tensor

    @property
    def leaves(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.x, self.weight, self.bias

    @staticmethod
    def make(shape: ConvolutionShape, dtype: torch.dtype, device: str = "cpu") -> "Inputs":
        """Normal tokens, behind cls where the shape says so; the weight keeps their scale."""
        generator = torch.Generator(device).manual_seed(0)

        def normal(*size: int) -> Tensor:
            return torch.randn(size, generator=generator, device=device)

        (t, h, w), taps = shape.grid, torch.Size(shape.kernel).numel()
        weight = normal(shape.channels, 1, *shape.kernel) * taps**-0.5
        bias = normal(shape.channels)
        frames = normal(shape.batch, t, 1 + h * w, shape.channels).to(dtype)
        x = frames[:, :, 1:].unflatten(2, (h, w))
        x = x if shape.behind_cls else x.contiguous()
        grad_out = normal(shape.batch, t, h, w, shape.channels)
        return Inputs(x, weight.to(dtype), bias.to(dtype), grad_out.to(dtype))

    def as_volume(self, layout: torch.memory_format) -> "Inputs":
        x, grad_out = (
            tensor.permute(0, 4, 1, 2, 3).contiguous(memory_format=layout) for tensor in (self.x, self.grad_out)
        )
        return Inputs(x, self.weight, self.bias, grad_out)


def reference_outputs(
    shape: ConvolutionShape, work: str, dtype: torch.dtype, mode: str, device: str = "cpu"
) -> Outputs:
    """The result as tokens, and with the backward the gradients of tokens, weight and bias, in float64."""
    inputs = Inputs.make(shape, dtype, device)
    exact = Inputs(*(tensor.double() for tensor in (*inputs.leaves, inputs.grad_out)))

    def function(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return reference.depthwise_conv3d(x, weight, bias, residual=work == TOKENS)

    return _runner(function, exact, mode)()


def tolerance(dtype: torch.dtype, mode: str) -> list[float]:
    """For each of `reference_outputs`."""
    results, gradients = TOLERANCES[dtype]
    alone = {"forward": [results], INPUT_GRADIENT: [gradients], WEIGHT_GRADIENT: [gradients] * 2}
    return alone.get(mode, [results, *[gradients] * 3])


def depthwise_ways(
    shape: ConvolutionShape,
    work: str,
    dtype: torch.dtype,
    mode: str,
    names: Sequence[str] = NAMES,
    device: str = "cpu",
) -> list[Way]:
    """The ways of `names`, each also with " compiled", on the same numbers."""
    return [_way(name, shape, work, dtype, mode, device) for name in names]


def _way(name: str, shape: ConvolutionShape, work: str, dtype: torch.dtype, mode: str, device: str) -> Way:
    base = name.removesuffix(" compiled")
    inputs = Inputs.make(shape, dtype, device)
    if work == VOLUME:
        inputs = inputs.as_volume(LAYOUTS.get(base, torch.channels_last_3d))
        function: Function = vtfast_volume if base == "vtfast" else conv3d
    else:
        function = vtfast_tokens if base == "vtfast" else TOKENS_IN[base]
    if base != name:
        function = torch.compile(function, dynamic=False)
    # The result, and the gradient of the volume.
    volumes = 0 if work == TOKENS or mode == WEIGHT_GRADIENT else 2

    def outputs(returned: Outputs) -> Outputs:
        return [x.permute(0, 2, 3, 4, 1) if i < volumes else x for i, x in enumerate(returned)]

    return Way(name, _runner(function, inputs, mode), outputs)


def _runner(function: Function, inputs: Inputs, mode: str) -> Callable[[], Outputs]:
    if mode not in (INPUT_GRADIENT, WEIGHT_GRADIENT):
        return partial(_run, function, inputs, mode)

    @cache
    def graph() -> tuple[Tensor, list[Tensor]]:
        leaves = [leaf.detach() for leaf in inputs.leaves]
        wanted = leaves[:1] if mode == INPUT_GRADIENT else leaves[1:]
        for leaf in wanted:
            leaf.requires_grad_()
        return function(*leaves), wanted

    def run() -> Outputs:
        out, wanted = graph()
        return torch.autograd.grad(out, wanted, inputs.grad_out, retain_graph=True)

    return run


def _run(function: Function, inputs: Inputs, mode: str) -> Outputs:
    if mode == "forward":
        with torch.no_grad():
            return (function(*inputs.leaves),)
    leaves = [leaf.detach().requires_grad_() for leaf in inputs.leaves]
    out = function(*leaves)
    return (out.detach(), *torch.autograd.grad(out, leaves, inputs.grad_out))


def vtfast_volume(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What `vtfast.layers.DepthwiseConv3d` does."""
    return ops.depthwise_conv3d(x.permute(0, 2, 3, 4, 1), weight, bias).permute(0, 4, 1, 2, 3)


def vtfast_tokens(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return ops.depthwise_conv3d(x, weight, bias, residual=True)


def conv3d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    kt, kh, kw = weight.shape[2:]
    return F.conv3d(x, weight, bias, padding=(kt // 2, kh // 2, kw // 2), groups=len(weight))


def round_trip(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    volume = conv3d(x.permute(0, 4, 1, 2, 3).contiguous(), weight, bias)
    return x + volume.permute(0, 2, 3, 4, 1).contiguous()


def as_view(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x + conv3d(x.permute(0, 4, 1, 2, 3), weight, bias).permute(0, 2, 3, 4, 1)


TOKENS_IN: dict[str, Function] = {"NCDHW": round_trip, "channels_last_3d": as_view}
