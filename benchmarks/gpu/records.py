"""A run on a GPU as `vtfast report` and `vtfast bench --compare` read it."""

from collections.abc import Mapping
from typing import Any

from benchmarks.gpu.figures import Figures
from vtfast.bench.results import Record, Results, Run


def results_of(device: Mapping[str, Any], figures: list[Figures], ceilings: Mapping[str, float]) -> Results:
    """A single run with a record for every case that was measured; an operation's subject is the kind of its case."""
    facts = {
        **device,
        "device": device["name"],
        "processor": device.get("processor", "unknown"),
        "threads": device.get("threads"),
        "torch": device.get("torch"),
        "vtfast": device.get("vtfast"),
        "instruction set": "cuda",
        "allocator": "default (torch's caching allocator)",
    }
    return Results([Run(facts, dict(ceilings), [_record(f) for f in figures if f.results])])


def _record(f: Figures) -> Record:
    facts = f.facts
    kind = str(facts.get("kind", "operation"))
    dtype = str(facts.get("dtype", "bfloat16"))
    return Record(
        subject=kind,
        kind="model" if kind == "model" else "op",
        name=f.case,
        shape=str(facts.get("shape", f.case)),
        dtype=f"autocast {dtype}" if kind == "model" else dtype,
        mode=str(facts.get("mode", "forward")),
        device="cuda",
        flops=f.flops,
        exps=facts.get("exps"),
        fewest_bytes=f.fewest_bytes,
        sums=facts.get("sums"),
        results=tuple(f.results),
    )
