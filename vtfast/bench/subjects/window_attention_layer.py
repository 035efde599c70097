"""The attention layer of a Swin block, linear layers included: torchvision's module against vtfast's.

`ShiftedWindowAttention3d` of torchvision (eager) and `WindowAttention3d` of vtfast with the same weights: qkv
projection, attention, output projection. The gradients are those of the input and of every parameter.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from vtfast.bench.measure import Case, Outputs, Way
from vtfast.bench.shapes import SWIN3D_T_WINDOWS, WindowShape
from vtfast.bench.subjects.subject import FORWARD, OP, Subject, dtype_of
from vtfast.bench.upstreams.upstream import torchvision_video
from vtfast.layers import WindowAttention3d

TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 4e-2, torch.float16: 1e-2}


def case_of(shape: WindowShape, dtype: str, mode: str, names: Sequence[str], device: str = "cpu") -> Case:
    """One row."""
    element, training = dtype_of(dtype), mode != FORWARD
    return Case(
        name=f"{dtype}, {shape.name}",
        ways=partial(ways, shape, element, training, device, names),
        reference=partial(reference_outputs, shape, element, training, device),
        tolerance=TOLERANCES[element] * (2 if training else 1),
    )


def ways(
    shape: WindowShape,
    dtype: torch.dtype,
    training: bool,
    device: str = "cpu",
    names: Sequence[str] = ("eager", "vtfast"),
) -> list[Way]:
    """The ways of `names`: torchvision's module, "eager" or "compile", and vtfast's."""
    theirs, ours, x = _layers(shape, dtype, device)
    made = []
    for name in names:
        layer = ours if name == "vtfast" else theirs
        if name == "compile":
            layer = cast(nn.Module, torch.compile(layer, dynamic=False))
        made.append(_way(name, layer, x, training))
    return made


def reference_outputs(shape: WindowShape, dtype: torch.dtype, training: bool, device: str = "cpu") -> Outputs:
    """Those of torchvision's module in float64."""
    theirs, _, x = _layers(shape, dtype, device)
    way = _way("float64", theirs.double(), x.double(), training)
    assert way.outputs is not None
    return way.outputs(way.run())


def _layers(shape: WindowShape, dtype: torch.dtype, device: str) -> tuple[nn.Module, nn.Module, Tensor]:
    torch.manual_seed(0)
    # The modules clamp a shift themselves, and so are given that of an axis with several windows.
    window, shift = list(shape.window), [w // 2 if any(shape.shift) else 0 for w in shape.window]
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


SUBJECTS = (
    Subject(
        name="window_attention_layer",
        kind=OP,
        sizes={shape.name: shape for shape in SWIN3D_T_WINDOWS},
        quick=0,
        peers=("eager", "compile"),
        cuda_peers=("eager", "compile"),
        make_case=case_of,
        small=WindowShape("small", (8, 14, 14), 3, shift=(0, 3, 3)),
        works=(("float32", FORWARD), ("bfloat16", FORWARD), ("float32", "forward + backward")),
    ),
)
