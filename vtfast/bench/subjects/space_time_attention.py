"""The core of attention over space and time, without linear layers, at the sizes of TimeSformers."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks import ceilings
from benchmarks.measure import Case, Way
from benchmarks.peers import MODES
from benchmarks.report import Section, timing_section
from benchmarks.scope import Scope
from benchmarks.shapes import DIVIDED, JOINT, SPARSE_AND_AXIAL, SpaceTimeShape
from benchmarks.space_time_peers import PACKED, reference_outputs, space_time_ways

DTYPES = (torch.float32, torch.bfloat16)

# Of output and d_qkv: rounding of the probabilities to bfloat16, as every peer does, shows most in the gradient.
TOLERANCES = {torch.float32: (1e-5, 1e-4), torch.bfloat16: (2e-2, 5e-2)}

_INCLUDED = (
    "From qkv to the input of the output projection: 12 heads of 64, one clip, cls as the published models have it. "
    "Peers start where the published block does, with time fastest: `time` and `joint` from packed qkv without a copy, "
    "`space` with one tensor of C channels that goes into frames, each with cls, and back. Those marked packed start "
    "from qkv packed with time slowest, as vtfast does, and copy it; that is the only start of axial and sparse "
    "schemes. `copy` moves as many bytes as qkv and the output have"
)


def run(scope: Scope) -> list[Section]:
    """Forward, and forward + backward."""
    forward, both = MODES
    without_amx = None
    if ceilings.has_amx():
        without_amx = ceilings.rates_without_amx(scope.core_effort, scope.threads)["GEMM bfloat16"]
    section = partial(timing_section, effort=scope.core_effort, gemm_without_amx=without_amx)
    gradients = f"{_INCLUDED}, and their gradients."
    return [
        section("Space-time attention core, forward", f"{_INCLUDED}.", cases(scope, forward)),
        section("Space-time attention core, forward + backward", gradients, cases(scope, both)),
    ]


def cases(scope: Scope, mode: str) -> Iterator[Case]:
    """A case for each dtype and shape."""
    for dtype in DTYPES:
        for shape in shapes_of(scope, mode):
            yield case_of(shape, dtype, mode, compiled=scope.compile and shape in (*DIVIDED[:2], JOINT))


def case_of(shape: SpaceTimeShape, dtype: torch.dtype, mode: str, compiled: bool = False) -> Case:
    """One row."""
    short = str(dtype).removeprefix("torch.")
    return Case(
        name=f"{short}, {shape.name}",
        ways=partial(_ways, shape, dtype, mode, compiled),
        reference=partial(reference_outputs, shape, dtype, mode),
        tolerance=TOLERANCES[dtype][: 1 if mode == "forward" else 2],
        flops=shape.product_flops * (2 if mode == "forward" else 7),
        fewest_bytes=shape.fewest_bytes(dtype.itemsize, backward=mode != "forward"),
        facts={"scheme": shape.scheme, "grid": shape.grid, "dtype": short, "mode": mode},
    )


def shapes_of(scope: Scope, mode: str) -> tuple[SpaceTimeShape, ...]:
    """The rows; schemes without published models in the forward only."""
    if scope.quick:
        return DIVIDED[:2]
    return (*DIVIDED, JOINT, *(SPARSE_AND_AXIAL if mode == "forward" else ()))


def _ways(shape: SpaceTimeShape, dtype: torch.dtype, mode: str, compiled: bool) -> list[Way]:
    names = ["eager", *["compile"] * compiled, "SDPA"]
    if shape.scheme in ("time", "space"):
        names.append(f"SDPA{PACKED}")
    # A copy reads and writes each of its bytes.
    copy = ceilings.copy(size=shape.fewest_bytes(dtype.itemsize, backward=mode != "forward") // 2)
    return [*space_time_ways(shape, dtype, mode, [*names, "vtfast"]), copy, ceilings.gemm(dtype)]
