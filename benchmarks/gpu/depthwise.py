"""Depthwise 3D convolution against torch's own, on shapes that fill a GPU: `python -m benchmarks.gpu.depthwise`.

Of a volume in NCDHW torch runs kernels of its own, of one in channels_last_3d those of cuDNN.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch

from benchmarks.gpu.jobs import Job, main, natively
from benchmarks.gpu.replay import replayed
from vtfast.bench.measure import Case, Way
from vtfast.bench.peers.depthwise import (
    INPUT_GRADIENT,
    NAMES,
    TOKENS,
    VOLUME,
    WEIGHT_GRADIENT,
    depthwise_ways,
    reference_outputs,
    tolerance,
)
from vtfast.bench.peers.grid_attention import MODES
from vtfast.bench.shapes import (
    FILLING_BLOCK,
    FILLING_CONVOLVED_TIME,
    FILLING_HALF_BLOCK,
    FILLING_LARGE,
    FILLING_POSITION,
    FILLING_QUARTER_BLOCK,
    ConvolutionShape,
)

FORWARD, BOTH = MODES
PASSES = (FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT)

_HALF = torch.bfloat16


def jobs(device: str, quick: bool) -> Sequence[Job]:
    """What matters most first: the time may be up before the last."""
    return list(_quick_jobs(device) if quick else _all_jobs(device))


def _all_jobs(device: str) -> Iterator[Job]:
    for shape in (FILLING_BLOCK, FILLING_LARGE):
        yield from (convolution_job(shape, VOLUME, _HALF, mode, device) for mode in PASSES)
    yield from (convolution_job(FILLING_BLOCK, VOLUME, torch.float32, mode, device) for mode in PASSES)
    yield from (convolution_job(FILLING_POSITION, TOKENS, _HALF, mode, device) for mode in MODES)
    yield from (convolution_job(FILLING_QUARTER_BLOCK, VOLUME, _HALF, mode, device) for mode in PASSES)
    yield from (convolution_job(FILLING_CONVOLVED_TIME, VOLUME, _HALF, mode, device) for mode in PASSES)
    yield from (replay_job(replace(FILLING_BLOCK, batch=1), mode, device) for mode in MODES)
    yield from (convolution_job(FILLING_HALF_BLOCK, VOLUME, _HALF, mode, device) for mode in PASSES)


def _quick_jobs(device: str) -> Iterator[Job]:
    """Small enough for a dry run."""
    shape = ConvolutionShape("3 x 3 x 3", (2, 8, 8), 16, batch=2)
    yield from (convolution_job(shape, VOLUME, torch.float32, mode, device) for mode in PASSES)
    yield convolution_job(shape, TOKENS, torch.float32, BOTH, device)


def convolution_job(shape: ConvolutionShape, work: str, dtype: torch.dtype, mode: str, device: str) -> Job:
    """Of a volume, or of tokens that are added to it."""
    short = str(dtype).removeprefix("torch.")
    facts = {
        "kind": "depthwise convolution",
        "shape": shape.name,
        "batch": shape.batch,
        "work": work,
        "dtype": short,
        "sums": "float32",
        "mode": mode,
    }
    return Job(
        Case(
            name=case_name(shape, work, dtype, mode),
            ways=partial(_ways, shape, work, dtype, mode, device),
            reference=partial(reference_outputs, shape, work, dtype, mode, device),
            tolerance=tolerance(dtype, mode),
            flops=shape.flops * (3 if mode == BOTH else 1),
            # Each gradient alone reads one of the two tensors and writes, or reads, the other.
            fewest_bytes=shape.fewest_bytes(dtype.itemsize, backward=False) * (5 if mode == BOTH else 2) // 2,
            facts=facts,
        )
    )


def replay_job(shape: ConvolutionShape, mode: str, device: str) -> Job:
    """One clip, as CUDA graphs."""

    def ways() -> list[Way]:
        return [replayed(way) for way in _ways(shape, VOLUME, _HALF, mode, device)]

    job = convolution_job(shape, VOLUME, _HALF, mode, device)
    facts = job.case.facts | {"kind": "one clip, replayed"}
    return replace(job, case=replace(job.case, name=f"{job.case.name}, one clip, replayed", ways=ways, facts=facts))


def case_name(shape: ConvolutionShape, work: str, dtype: torch.dtype, mode: str) -> str:
    """Of a case."""
    residual = ", of tokens with residual" if work == TOKENS else ""
    return f"{shape.name}{residual}, {str(dtype).removeprefix('torch.')}, {mode}"


def _ways(shape: ConvolutionShape, work: str, dtype: torch.dtype, mode: str, device: str) -> list[Way]:
    ways = depthwise_ways(shape, work, dtype, mode, NAMES, device)
    return [natively(way) if way.name == "vtfast" else way for way in ways]


if __name__ == "__main__":
    sys.exit(main(jobs))
