"""Results of benchmarks that were never run."""

from typing import Any

from vtfast.bench.measure import Result, Timing
from vtfast.bench.results import Record, Results, Run

FACTS = {
    "processor": "Planted (avx2)", "cores": 2, "threads": 2, "torch": "2.13.0", "vtfast": "0.1.0", "commit": "abc",
    "instruction set": "avx2", "allocator": "default (libc, returns freed pages)", "environment": {},
    "date": "2026-01-01T00:00+00:00", "load": 0.0,
}  # fmt: skip
CEILINGS = {"GEMM float32": 1e11, "copy": 1e10, "exp": 1e10}


def result(way: str, seconds: float | None, agrees: bool | None = True, spread: float = 0.02, **more: Any) -> Result:
    """A result whose quartiles are `spread` of the median apart."""
    timing = None if seconds is None else Timing(seconds, seconds * (1 - spread / 2), seconds * (1 + spread / 2), 9)
    errors = () if agrees is None else (1e-6,) if agrees else (0.5,)
    return Result(way, timing, errors, agrees, **more)


def record(*results: Result, **more: Any) -> Record:
    """Of the first stage of swin3d_t, unless more is said."""
    fields = {
        "subject": "window_attention", "kind": "op", "name": "stage 1", "shape": "grid=8x56x56,num_heads=3",
        "dtype": "float32", "mode": "forward", "threads": 2, "flops": 10**9, "fewest_bytes": 10**7,
    }  # fmt: skip
    return Record(**(fields | more), results=results)


def run(*records: Record, **facts: Any) -> Run:
    """On the planted machine."""
    return Run(FACTS | facts, dict(CEILINGS), list(records))


def results(*records: Record, **facts: Any) -> Results:
    """A file of a single run."""
    return Results([run(*records, **facts)])
