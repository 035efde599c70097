"""Depthwise 3D convolution with the kernels and sizes of UniFormer and UniFormerV2, of volumes and of tokens."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks import ceilings
from benchmarks.depthwise_peers import NAMES, TOKENS, VOLUME, depthwise_ways, reference_outputs, tolerance
from benchmarks.measure import Case, Way
from benchmarks.peers import MODES
from benchmarks.report import Section, timing_section
from benchmarks.scope import Scope
from benchmarks.shapes import (
    UNIFORMER_CONVOLUTIONS,
    UNIFORMER_V2_POSITION,
    UNIFORMER_V2_TIME,
    ConvolutionShape,
)

DTYPES = (torch.float32, torch.bfloat16)

_YARDSTICKS = (
    "The rate counts multiplications and additions of all taps within the grid, and GEMM is that of float32, whose "
    "units a convolution in either dtype sums with. `copy` moves as many bytes as are read and written at least"
)
_NOTES = {
    VOLUME: (
        "Depthwise convolution of volumes",
        "Of one clip, with bias, stride 1 and half the kernel of padding; volumes and gradients lie in the layout of "
        f"the way, vtfast's in channels_last_3d. {_YARDSTICKS}.",
    ),
    TOKENS: (
        "Depthwise convolution of tokens, added to them",
        "x + conv(x) of channels-last tokens: NCDHW copies them to a volume and back, channels_last_3d takes them as a "
        f"view. {_YARDSTICKS}.",
    ),
}


def run(scope: Scope) -> list[Section]:
    """Forward, and forward + backward with the gradients of input, weight and bias."""
    return [
        timing_section(f"{title}, {mode}", notes, cases(scope, work, mode), scope.core_effort)
        for work, (title, notes) in _NOTES.items()
        for mode in MODES
    ]


def cases(scope: Scope, work: str, mode: str) -> Iterator[Case]:
    """A case for each dtype and shape."""
    for dtype in DTYPES:
        for shape in shapes_of(scope, work):
            yield case_of(shape, work, dtype, mode, scope.compile)


def shapes_of(scope: Scope, work: str) -> list[ConvolutionShape]:
    """Of volumes all; of tokens the position embeddings."""
    if work == VOLUME:
        blocks = UNIFORMER_CONVOLUTIONS
        return [blocks[0], blocks[4]] if scope.quick else [*blocks, UNIFORMER_V2_TIME]
    embeddings = UNIFORMER_CONVOLUTIONS[: 1 if scope.quick else 4]
    return [*embeddings, UNIFORMER_V2_POSITION]


def case_of(shape: ConvolutionShape, work: str, dtype: torch.dtype, mode: str, compiled: bool = False) -> Case:
    """One row. The compiler has something to join only around the convolution of tokens."""
    short = str(dtype).removeprefix("torch.")
    names = [*NAMES[:-1], *[f"{name} compiled" for name in NAMES[:-1] if compiled and work == TOKENS], NAMES[-1]]
    return Case(
        name=f"{short}, {shape.name}",
        ways=partial(_ways, shape, work, dtype, mode, names),
        reference=partial(reference_outputs, shape, work, dtype, mode),
        tolerance=tolerance(dtype, mode),
        flops=shape.flops * (1 if mode == "forward" else 3),
        facts={"shape": shape.name, "work": work, "dtype": short, "mode": mode},
    )


def _ways(shape: ConvolutionShape, work: str, dtype: torch.dtype, mode: str, names: list[str]) -> list[Way]:
    copied = shape.fewest_bytes(dtype.itemsize, backward=mode != "forward")
    return [
        *depthwise_ways(shape, work, dtype, mode, names),
        ceilings.copy(size=copied // 2),  # each byte is read and written
        ceilings.gemm(torch.float32, size=1024),
    ]
