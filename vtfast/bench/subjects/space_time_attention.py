"""The core of attention over space and time, without linear layers, at the sizes of TimeSformers.

From qkv to the input of the output projection, cls as the published models have it. Peers start where the published
block does, with time fastest: `time` and `joint` from packed qkv without a copy, `space` with one tensor of C channels
that goes into frames, each with cls, and back. Those marked packed start from qkv packed with time slowest, as vtfast
does, and copy it; that is the only start of axial and sparse schemes.
"""

from collections.abc import Sequence
from functools import partial

import torch

from vtfast.bench import ceilings
from vtfast.bench.measure import Case, Way
from vtfast.bench.peers.grid_attention import SDPA_BACKENDS
from vtfast.bench.peers.space_time import PACKED, reference_outputs, space_time_ways
from vtfast.bench.shapes import TIMESFORMER_GRIDS, SpaceTimeShape
from vtfast.bench.subjects.subject import FORWARD, OP, Subject, dtype_of

# Of output and d_qkv: rounding of the probabilities to 16 bits, as every peer does, shows most in the gradient.
TOLERANCES = {torch.float32: (1e-5, 1e-4), torch.bfloat16: (2e-2, 5e-2), torch.float16: (4e-3, 1e-2)}


def case_of(shape: SpaceTimeShape, dtype: str, mode: str, names: Sequence[str], device: str = "cpu") -> Case:
    """One row."""
    element, backward = dtype_of(dtype), mode != FORWARD
    return Case(
        name=f"{dtype}, {shape.name}",
        ways=partial(_ways, shape, element, mode, names, device),
        reference=partial(reference_outputs, shape, element, mode, device),
        tolerance=TOLERANCES[element][: 2 if backward else 1],
        flops=shape.product_flops * (7 if backward else 2),
        fewest_bytes=shape.fewest_bytes(element.itemsize, backward),
    )


def _ways(shape: SpaceTimeShape, dtype: torch.dtype, mode: str, names: Sequence[str], device: str) -> list[Way]:
    # A copy reads and writes each of its bytes.
    copy = ceilings.copy(size=shape.fewest_bytes(dtype.itemsize, backward=mode != FORWARD) // 2, device=device)
    return [*space_time_ways(shape, dtype, mode, names, device), copy, ceilings.gemm(dtype, device=device)]


def _subject(name: str, scheme: str, grids: Sequence[tuple[int, int, int]], quick: int) -> Subject:
    published = scheme in ("time", "space")
    packed = (f"SDPA{PACKED}",) if published else ()
    return Subject(
        name=name,
        kind=OP,
        sizes={" x ".join(map(str, grid)): SpaceTimeShape(scheme, grid) for grid in grids},
        quick=quick,
        peers=("eager", "SDPA", *packed, "compile"),
        cuda_peers=("eager", *SDPA_BACKENDS, *packed, "compile"),
        make_case=case_of,
        small=SpaceTimeShape(scheme, (2, 4, 4)),
    )


# The schemes that have no published models are measured at the first size alone, one of each kind.
SUBJECTS = (
    _subject("time_attention", "time", TIMESFORMER_GRIDS, 1),
    _subject("space_attention", "space", TIMESFORMER_GRIDS, 1),
    _subject("joint_attention", "joint", TIMESFORMER_GRIDS[:1], 1),
    _subject("axial_attention", "width", TIMESFORMER_GRIDS[:1], 0),
    _subject("sparse_local_attention", "local", TIMESFORMER_GRIDS[:1], 0),
    _subject("sparse_global_attention", "global", TIMESFORMER_GRIDS[:1], 0),
)
