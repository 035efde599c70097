"""Attention against its peers, on shapes that fill a GPU: `python -m benchmarks.gpu.attention`."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmarks.gpu import pooling, space_time
from benchmarks.gpu.jobs import Job, main, natively
from benchmarks.gpu.replay import replayed
from vtfast.bench.measure import Case, Way
from vtfast.bench.peers.grid_attention import MODES, SDPA_BACKENDS, core_ways, reference_outputs
from vtfast.bench.peers.pooling import POOLING, SKIP
from vtfast.bench.shapes import (
    FILLING_HR,
    FILLING_JOINT,
    FILLING_LONG_TIME,
    FILLING_PLAIN_POOLING,
    FILLING_POOLING,
    FILLING_SPACE,
    FILLING_TIME,
    FILLING_WINDOWS,
    SWIN3D_T_STAGES,
    PoolingShape,
    SpaceTimeShape,
    WindowShape,
)
from vtfast.bench.subjects import window_attention_layer as window_layer
from vtfast.bench.subjects.window_attention import TOLERANCES

FORWARD, BOTH = MODES

PLAIN = ("eager", *SDPA_BACKENDS)
FLEX = ("FlexAttention, bias compiled", "FlexAttention, table compiled")
EVERY = (*PLAIN, "compile", "SDPA compiled", *FLEX)
FUSED = ("eager", "SDPA efficient", "SDPA cuDNN")
REPLAYED = ("eager", "compile", "SDPA efficient", "SDPA cuDNN")

_HALF = torch.bfloat16


def jobs(device: str, quick: bool) -> Sequence[Job]:
    """What matters most first: the time may be up before the last."""
    made = list(_quick_jobs(device) if quick else _all_jobs(device))
    names = [job.case.name for job in made]
    assert len(set(names)) == len(names)
    return made


def _all_jobs(device: str) -> Iterator[Job]:
    short, pair, long = FILLING_WINDOWS
    for window in (pair.shifted(), long.shifted()):
        yield from (core_job(window, _HALF, mode, EVERY, device) for mode in MODES)
    for shape in (FILLING_TIME[0], FILLING_SPACE):
        yield from (space_time.core_job(shape, _HALF, mode, space_time.EVERY, device) for mode in MODES)
    for pooled in FILLING_POOLING[:2]:
        yield from (pooling.core_job(pooled, _HALF, mode, pooling.EVERY, device) for mode in MODES)
    yield from (core_job(short.shifted(), _HALF, mode, EVERY, device) for mode in MODES)
    for pooled in FILLING_POOLING[2:]:
        yield from (pooling.core_job(pooled, _HALF, mode, pooling.FUSED, device) for mode in MODES)
    for pooled in FILLING_POOLING[:2]:
        yield from (pooling.token_job(pooled, POOLING, _HALF, mode, ("eager", "compile"), device) for mode in MODES)
    yield from (pooling.token_job(FILLING_POOLING[1], SKIP, _HALF, mode, ("eager",), device) for mode in MODES)
    for shape in (*FILLING_TIME[1:], *FILLING_HR, FILLING_JOINT, FILLING_LONG_TIME):
        yield from (space_time.core_job(shape, _HALF, mode, space_time.FUSED, device) for mode in MODES)
    for window in (pair.shifted(), long.shifted()):
        yield from (layer_job(window, _HALF, training, device) for training in (False, True))
        yield core_job(window, _HALF, BOTH, FUSED, device, start="windows")
    for window in FILLING_WINDOWS:
        yield from (core_job(window, _HALF, mode, FUSED, device) for mode in MODES)
    for dtype in (torch.float16, torch.float32):
        for window in (long.shifted(), pair.shifted()):
            yield from (core_job(window, dtype, mode, FUSED, device) for mode in MODES)
    for window in (SWIN3D_T_STAGES[0].shifted(), replace(pair.shifted(), batch=1)):
        yield from (replay_job(window, mode, device) for mode in MODES)
    yield from (pooling.block_job(FILLING_POOLING[0], _HALF, mode, ("eager", "SDPA"), device) for mode in MODES)
    yield from (pooling.replay_job(replace(FILLING_POOLING[4], batch=1), _HALF, mode, device) for mode in MODES)
    for pooled in (*FILLING_POOLING[2:], *FILLING_PLAIN_POOLING[:1]):
        yield from (pooling.token_job(pooled, POOLING, _HALF, mode, ("eager",), device) for mode in MODES)
    yield from (
        pooling.token_job(FILLING_POOLING[0], POOLING, torch.float32, mode, ("eager",), device) for mode in MODES
    )
    for pooled in FILLING_PLAIN_POOLING:
        yield from (pooling.core_job(pooled, _HALF, mode, (*pooling.FUSED, "SDPA flash"), device) for mode in MODES)
    yield from (pooling.core_job(FILLING_POOLING[1], torch.float32, mode, pooling.FUSED, device) for mode in MODES)
    for shape in (FILLING_TIME[0], FILLING_SPACE):
        yield from (space_time.replay_job(replace(shape, batch=1), _HALF, mode, device) for mode in MODES)


def _quick_jobs(device: str) -> Iterator[Job]:
    """A shape of each kind, small enough for a dry run."""
    window = WindowShape("window 2 x 7 x 7", (2, 14, 14), 2, (2, 7, 7)).shifted()
    yield from (core_job(window, torch.float32, mode, FUSED, device) for mode in MODES)
    for scheme in ("time", "space", "joint"):
        shape = SpaceTimeShape(scheme, (8, 4, 4), num_heads=2)
        yield from (space_time.core_job(shape, torch.float32, mode, space_time.FUSED, device) for mode in MODES)
    yield core_job(window, _HALF, FORWARD, FUSED, device)
    yield layer_job(window, torch.float32, True, device)
    pooled = PoolingShape("MViTv2", (2, 8, 8), 2, (1, 2, 2), (1, 2, 2), head_dim=32)
    yield from (pooling.core_job(pooled, torch.float32, mode, pooling.FUSED, device) for mode in MODES)
    yield pooling.block_job(pooled, torch.float32, BOTH, ("eager", "SDPA"), device)
    for work in (POOLING, SKIP):
        yield from (pooling.token_job(pooled, work, torch.float32, mode, ("eager",), device) for mode in MODES)


def core_job(
    shape: WindowShape, dtype: torch.dtype, mode: str, peers: Sequence[str], device: str, start: str = "packed"
) -> Job:
    """The attention itself."""
    return Job(
        Case(
            name=f"{case_name(shape, dtype, mode)}{', k and v in windows' if start == 'windows' else ''}",
            ways=partial(core_ways, shape, dtype, mode, (*peers, "vtfast"), start, device),
            reference=partial(reference_outputs, shape, dtype, mode, device),
            tolerance=TOLERANCES[dtype][: 1 if mode == FORWARD else 2 + shape.bias],
            flops=product_flops(shape, mode),
            fewest_bytes=fewest_bytes(shape, dtype, mode),
            facts=_facts(shape, dtype, mode) | {"kind": "core" if start == "packed" else "core of a block"},
        )
    )


def layer_job(shape: WindowShape, dtype: torch.dtype, training: bool, device: str) -> Job:
    """With its linear layers, against torchvision's module."""
    mode = BOTH if training else FORWARD

    def ways() -> list[Way]:
        return [
            natively(way) if way.name == "vtfast" else way
            for way in window_layer.ways(shape, dtype, training, device, ("eager", "compile", "vtfast"))
        ]

    return Job(
        Case(
            name=f"{case_name(shape, dtype, mode)}, with linear layers",
            ways=ways,
            reference=partial(window_layer.reference_outputs, shape, dtype, training, device),
            tolerance=window_layer.TOLERANCES[dtype],
            facts=_facts(shape, dtype, mode) | {"kind": "layer"},
        )
    )


def replay_job(shape: WindowShape, mode: str, device: str) -> Job:
    """One clip, as CUDA graphs: what is left when nothing waits for the host."""

    def ways() -> list[Way]:
        return [replayed(way) for way in core_ways(shape, _HALF, mode, (*REPLAYED, "vtfast"), "packed", device)]

    job = core_job(shape, _HALF, mode, (), device)
    facts = job.case.facts | {"kind": "one clip, replayed"}
    return replace(job, case=replace(job.case, name=f"{job.case.name}, one clip, replayed", ways=ways, facts=facts))


def product_flops(shape: WindowShape, mode: str) -> int:
    """Of the matrix products: two in the forward, five in the backward."""
    return shape.product_flops * (2 if mode == FORWARD else 7)


def fewest_bytes(shape: WindowShape, dtype: torch.dtype, mode: str) -> int:
    """Forward: reads qkv, writes the output. Backward: reads qkv and the output's gradient, writes that of qkv."""
    return shape.fewest_bytes(dtype.itemsize, backward=mode != FORWARD)


def case_name(shape: WindowShape, dtype: torch.dtype, mode: str) -> str:
    """Of the attention itself, packed."""
    return f"{shape.name}, {str(dtype).removeprefix('torch.')}, {mode}"


def _facts(shape: WindowShape, dtype: torch.dtype, mode: str) -> dict[str, Any]:
    return {
        "shape": shape.name,
        "grid": shape.grid,
        "block": shape.window,
        "shift": shape.shift,
        "batch": shape.batch,
        "heads": shape.num_heads,
        "head_dim": shape.head_dim,
        "group": shape.group_size,
        "dtype": str(dtype).removeprefix("torch."),
        "mode": mode,
        "exps": shape.num_tokens * shape.group_size * shape.num_heads * (1 if mode == FORWARD else 2),
        "qkv_bytes": 3 * shape.channels * shape.num_tokens * dtype.itemsize,
        "lse_bytes": 4 * shape.num_heads * shape.num_tokens,
        "table_bytes": 4 * shape.table_shape[0] * shape.num_heads if shape.bias else 0,
    }


if __name__ == "__main__":
    sys.exit(main(jobs))
