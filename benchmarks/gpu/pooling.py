"""Pooling and pooling attention of an MViT's blocks, cls included, as jobs of `benchmarks.gpu.attention`."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from benchmarks.gpu.jobs import Job, natively
from benchmarks.gpu.replay import replayed
from vtfast.bench.measure import Case, Way
from vtfast.bench.peers.grid_attention import SDPA_BACKENDS
from vtfast.bench.peers.pooling import ATTENTION, CORE, POOLING, pooling_ways, reference_outputs, tolerance
from vtfast.bench.shapes import PoolingShape
from vtfast.bench.subjects.token_pooling import fewest_bytes

FUSED = ("eager", "SDPA efficient", "SDPA cuDNN")
EVERY = ("eager", *SDPA_BACKENDS, "compile", "SDPA compiled", "FlexAttention compiled")
REPLAYED = ("eager", "compile", "SDPA efficient")


def core_job(shape: PoolingShape, dtype: torch.dtype, mode: str, peers: Sequence[str], device: str) -> Job:
    """The attention itself, of pooled q, k and v."""
    forward = mode == "forward"
    facts = {
        "exps": shape.num_scores * (1 if forward else 2),
        "lse_bytes": 4 * shape.batch * shape.num_heads * shape.num_queries,
    }
    case = Case(
        name=case_name(shape, dtype, mode),
        ways=partial(_ways, shape, CORE, dtype, mode, (*peers, "vtfast"), device),
        reference=partial(reference_outputs, shape, CORE, dtype, mode, device),
        tolerance=tolerance(shape, CORE, dtype, mode),
        flops=shape.product_flops * (2 if forward else 7),
        fewest_bytes=shape.fewest_bytes(dtype.itemsize, backward=not forward),
        facts=_facts(shape, dtype, mode, "pooling core") | facts,
    )
    return Job(case)


def block_job(shape: PoolingShape, dtype: torch.dtype, mode: str, peers: Sequence[str], device: str) -> Job:
    """From packed qkv to the input of the output projection, with convolutions and norms."""
    case = Case(
        name=f"{case_name(shape, dtype, mode)}, with pooling",
        ways=partial(_ways, shape, ATTENTION, dtype, mode, (*peers, "vtfast"), device),
        reference=partial(reference_outputs, shape, ATTENTION, dtype, mode, device),
        tolerance=tolerance(shape, ATTENTION, dtype, mode),
        facts=_facts(shape, dtype, mode, "pooling block"),
    )
    return Job(case)


def token_job(shape: PoolingShape, work: str, dtype: torch.dtype, mode: str, peers: Sequence[str], device: str) -> Job:
    """Only the pooling: of q, k and v with its norms, or of the skip path."""
    case = Case(
        name=token_case_name(shape, work, dtype, mode),
        ways=partial(_ways, shape, work, dtype, mode, (*peers, "vtfast"), device),
        reference=partial(reference_outputs, shape, work, dtype, mode, device),
        tolerance=tolerance(shape, work, dtype, mode),
        fewest_bytes=fewest_bytes(shape, work, dtype, mode),
        facts=_facts(shape, dtype, mode, "token pooling"),
    )
    return Job(case)


def token_case_name(shape: PoolingShape, work: str, dtype: torch.dtype, mode: str) -> str:
    """Of the pooling alone."""
    return f"{case_name(shape, dtype, mode)}, pooling of {'q, k, v' if work == POOLING else 'the skip path'}"


def replay_job(shape: PoolingShape, dtype: torch.dtype, mode: str, device: str) -> Job:
    """One clip, as CUDA graphs."""

    def ways() -> list[Way]:
        return [replayed(way) for way in _ways(shape, CORE, dtype, mode, (*REPLAYED, "vtfast"), device)]

    job = core_job(shape, dtype, mode, (), device)
    facts = job.case.facts | {"kind": "one clip, replayed"}
    return replace(job, case=replace(job.case, name=f"{job.case.name}, one clip, replayed", ways=ways, facts=facts))


def case_name(shape: PoolingShape, dtype: torch.dtype, mode: str) -> str:
    """Of the attention itself."""
    return f"{shape.name}, {str(dtype).removeprefix('torch.')}, {mode}"


def _ways(
    shape: PoolingShape, work: str, dtype: torch.dtype, mode: str, names: Sequence[str], device: str
) -> list[Way]:
    ways = pooling_ways(shape, work, dtype, mode, names, device)
    return [natively(way) if way.name == "vtfast" else way for way in ways]


def _facts(shape: PoolingShape, dtype: torch.dtype, mode: str, kind: str) -> dict[str, object]:
    return {
        "kind": kind,
        "shape": shape.name,
        "q_grid": shape.q_grid,
        "k_grid": shape.k_grid,
        "batch": shape.batch,
        "heads": shape.num_heads,
        "head_dim": shape.head_dim,
        "dtype": str(dtype).removeprefix("torch."),
        "mode": mode,
    }
