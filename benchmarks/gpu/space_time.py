"""Attention over space and time of a TimeSformer, cls included, as jobs of `benchmarks.gpu.attention`."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from benchmarks.gpu.jobs import Job
from benchmarks.gpu.replay import replayed
from vtfast.bench.measure import Case, Way
from vtfast.bench.peers.grid_attention import SDPA_BACKENDS
from vtfast.bench.peers.space_time import ALONE, PACKED, reference_outputs, space_time_ways
from vtfast.bench.shapes import SpaceTimeShape
from vtfast.bench.subjects.space_time_attention import TOLERANCES

# FlashAttention-2 from a block of the published model.
FLASH = "SDPA flash"

FUSED = ("eager", FLASH, f"{FLASH}{PACKED}", f"{FLASH}{ALONE}", "SDPA efficient", "SDPA cuDNN")
EVERY = ("eager", *SDPA_BACKENDS, *(f"{name}{PACKED}" for name in SDPA_BACKENDS), f"{FLASH}{ALONE}", "compile")
REPLAYED = ("eager", "compile", FLASH, "SDPA efficient")


def core_job(shape: SpaceTimeShape, dtype: torch.dtype, mode: str, peers: Sequence[str], device: str) -> Job:
    """The attention itself."""
    short, forward = str(dtype).removeprefix("torch."), mode == "forward"
    return Job(
        Case(
            name=case_name(shape, dtype, mode),
            ways=partial(space_time_ways, shape, dtype, mode, (*peers, "vtfast"), device),
            reference=partial(reference_outputs, shape, dtype, mode, device),
            tolerance=TOLERANCES[dtype][: 1 if forward else 2],
            flops=shape.product_flops * (2 if forward else 7),
            fewest_bytes=shape.fewest_bytes(dtype.itemsize, backward=not forward),
            facts={
                "kind": "space-time core",
                "shape": shape.name,
                "grid": shape.grid,
                "scheme": shape.scheme,
                "batch": shape.batch,
                "heads": shape.num_heads,
                "head_dim": shape.head_dim,
                "group": shape.group_size,
                "dtype": short,
                "mode": mode,
                "exps": shape.num_scores * (1 if forward else 2),
                "qkv_bytes": 3 * shape.channels * shape.num_tokens * dtype.itemsize,
                "lse_bytes": 4 * shape.num_heads * shape.num_tokens,
            },
        )
    )


def replay_job(shape: SpaceTimeShape, dtype: torch.dtype, mode: str, device: str) -> Job:
    """One clip, as CUDA graphs."""

    def ways() -> list[Way]:
        return [replayed(way) for way in space_time_ways(shape, dtype, mode, (*REPLAYED, "vtfast"), device)]

    job = core_job(shape, dtype, mode, (), device)
    facts = job.case.facts | {"kind": "one clip, replayed"}
    return replace(job, case=replace(job.case, name=f"{job.case.name}, one clip, replayed", ways=ways, facts=facts))


def case_name(shape: SpaceTimeShape, dtype: torch.dtype, mode: str) -> str:
    """Of the attention itself."""
    return f"{shape.name}, {str(dtype).removeprefix('torch.')}, {mode}"
