"""The core of window attention, without linear layers, at the sizes of swin3d_t."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks import ceilings
from benchmarks.measure import Case, Way
from benchmarks.peers import MODES, CoreInputs, core_ways, reference_outputs, vtfast_way
from benchmarks.report import Section, timing_section
from benchmarks.scope import Scope
from benchmarks.shapes import SWIN3D_T_WINDOWS, WindowShape

DTYPES = (torch.float32, torch.bfloat16)

# Of output, d_qkv and d_table: rounding of scores to bfloat16 (as every peer does) shows most in the table's gradient.
TOLERANCES = {torch.float32: (1e-5, 1e-4, 1e-4), torch.bfloat16: (2e-2, 5e-2, 5e-2)}

_INCLUDED = (
    "Everything between the qkv projection and the output projection, window (8,7,7), head dimension 32, one clip of "
    "16 x 224 x 224. The peers' times include one roll and partition of a tensor of C channels and the way back, the "
    "copies that a Swin block makes (k and v already lie in windows), and eager also builds its shift mask in each "
    "call, as torchvision does. "
)
_FORWARD = "In SDPA and FlexAttention the 4-D tensor of bias and mask is prebuilt and not timed. "
_BACKWARD = "Gradients of q, k, v and of the float32 bias table. "
_COMPILED = "The peers that compile take part at stage 1."


def run(scope: Scope) -> list[Section]:
    """Forward, forward + backward, and the backward alone against the GEMM rate."""
    forward, both = MODES
    without_amx = None
    if ceilings.has_amx():
        without_amx = ceilings.rates_without_amx(scope.core_effort, scope.threads)["GEMM bfloat16"]
    section = partial(timing_section, effort=scope.core_effort, gemm_without_amx=without_amx)
    return [
        section("Window attention core, forward", _INCLUDED + _FORWARD + _COMPILED, cases(scope, forward)),
        section("Window attention core, forward + backward", _INCLUDED + _BACKWARD + _COMPILED, cases(scope, both)),
        section(
            "Window attention core, backward alone",
            _BACKWARD + "The rate counts its five matrix products.",
            backward_cases(scope),
        ),
    ]


def cases(scope: Scope, mode: str) -> Iterator[Case]:
    """A case for each dtype and window attention of the model."""
    for dtype in DTYPES:
        for shape in _shapes(scope):
            yield Case(
                name=f"{_short(dtype)}, {shape.name}",
                ways=partial(_ways, scope, shape, dtype, mode),
                reference=partial(reference_outputs, shape, dtype, mode),
                tolerance=TOLERANCES[dtype][: 1 if mode == "forward" else 3],
                flops=shape.product_flops * (2 if mode == "forward" else 7),
                facts=_facts(shape, dtype, mode),
            )


def backward_cases(scope: Scope) -> Iterator[Case]:
    """The backward of vtfast on a graph that is kept."""
    for dtype in DTYPES:
        for shape in _shapes(scope):
            yield Case(
                name=f"{_short(dtype)}, {shape.name}",
                ways=partial(_backward_ways, scope, shape, dtype),
                reference=partial(reference_outputs, shape, dtype, "backward"),
                tolerance=TOLERANCES[dtype],
                flops=shape.product_flops * 5,
                facts=_facts(shape, dtype, "backward"),
            )


def _ways(scope: Scope, shape: WindowShape, dtype: torch.dtype, mode: str) -> list[Way]:
    compiled = ("FlexAttention", "compile") if scope.compile and shape.name.startswith("stage 1") else ()
    return [*core_ways(shape, dtype, mode, ("eager", "SDPA", *compiled, "vtfast")), ceilings.gemm(dtype)]


def _backward_ways(scope: Scope, shape: WindowShape, dtype: torch.dtype) -> list[Way]:
    inputs = CoreInputs.make(shape, dtype, requires_grad=True)
    return [vtfast_way(inputs, "backward"), ceilings.gemm(dtype)]


def _shapes(scope: Scope) -> tuple[WindowShape, ...]:
    return SWIN3D_T_WINDOWS[:2] if scope.quick else SWIN3D_T_WINDOWS


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _facts(shape: WindowShape, dtype: torch.dtype, mode: str) -> dict[str, object]:
    return {"grid": shape.grid, "heads": shape.num_heads, "shift": shape.shift, "dtype": _short(dtype), "mode": mode}
