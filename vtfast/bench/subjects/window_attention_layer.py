"""The attention layer of a Swin block, linear layers included: torchvision's module against vtfast's."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import Case, Outputs, Way
from benchmarks.report import Section, timing_section
from benchmarks.scope import Scope
from benchmarks.shapes import SWIN3D_T_WINDOWS, WindowShape
from benchmarks.suites.grid_attention import DTYPES
from benchmarks.upstream import torchvision_video
from vtfast.layers import WindowAttention3d

QUICK = False

TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 4e-2}


def run(scope: Scope) -> list[Section]:
    """Forward in both dtypes, forward + backward in float32."""
    notes = (
        "`ShiftedWindowAttention3d` of torchvision (eager) and `WindowAttention3d` of vtfast with the same weights: "
        "qkv projection, attention, output projection. The gradients are those of the input and of every parameter."
    )
    return [timing_section("Window attention layer", notes, cases(scope), scope.core_effort)]


def cases(scope: Scope) -> Iterator[Case]:
    """A case for each dtype, direction and window attention of the model."""
    shapes = SWIN3D_T_WINDOWS[:2] if scope.quick else SWIN3D_T_WINDOWS
    for dtype, training in ((DTYPES[0], False), (DTYPES[0], True), (DTYPES[1], False)):
        for shape in shapes:
            direction = "forward + backward" if training else "forward"
            yield Case(
                name=f"{str(dtype).removeprefix('torch.')}, {direction}, {shape.name}",
                ways=partial(ways, shape, dtype, training),
                reference=partial(reference_outputs, shape, dtype, training),
                tolerance=TOLERANCES[dtype],
            )


def ways(
    shape: WindowShape, dtype: torch.dtype, training: bool, device: str = "cpu", compiled: bool = False
) -> list[Way]:
    """Torchvision's module, `compiled` as well if wanted, and vtfast's."""
    theirs, ours, x = _layers(shape, dtype, device)
    made = [_way("eager", theirs, x, training)]
    if compiled:
        made.append(_way("compile", torch.compile(theirs, dynamic=False), x, training))
    return [*made, _way("vtfast", ours, x, training)]


def reference_outputs(shape: WindowShape, dtype: torch.dtype, training: bool, device: str = "cpu") -> Outputs:
    """Those of torchvision's module in float64."""
    theirs, _, x = _layers(shape, dtype, device)
    way = _way("float64", theirs.double(), x.double(), training)
    assert way.outputs is not None
    return way.outputs(way.run())


def _layers(shape: WindowShape, dtype: torch.dtype, device: str) -> tuple[nn.Module, nn.Module, Tensor]:
    torch.manual_seed(0)
    window, shift = list(shape.window), [w // 2 if "shifted" in shape.name else 0 for w in shape.window]
    swin = torchvision_video().swin_transformer
    theirs = swin.ShiftedWindowAttention3d(shape.channels, window, shift, shape.num_heads)
    ours = WindowAttention3d(shape.channels, shape.num_heads, window, shift)
    ours.load_state_dict({name: p for name, p in theirs.state_dict().items() if name in ours.state_dict()})
    x = torch.randn(shape.batch, *shape.grid, shape.channels)
    return theirs.to(device, dtype), ours.to(device, dtype), x.to(device, dtype)


def _way(name: str, layer: nn.Module, x: Tensor, training: bool) -> Way:
    if not training:
        return Way(name, torch.no_grad()(lambda: layer(x)), lambda out: (out,))
    x = x.clone().requires_grad_()
    parameters = [parameter for _, parameter in sorted(layer.named_parameters())]

    def run() -> Sequence[Any]:
        out = layer(x)
        return (out.detach(), *torch.autograd.grad(out, (x, *parameters), out.detach()))

    return Way(name, run, lambda returned: returned)
