"""What the device can do at most, measured in the same run: `python -m benchmarks.gpu.ceilings`."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.jobs import Job, main
from vtfast.bench.ceilings import copy, gemm
from vtfast.bench.measure import Case, Effort, Way

COPY, EXP, TF32 = "copy", "exp", "GEMM tf32"


def jobs(device: str, quick: bool) -> Sequence[Job]:
    """A case each, so that one that fails takes no other along."""
    size, copied = (256, 2**20) if quick else (8192, 2**31)
    ways: dict[str, Callable[[], Way]] = {COPY: partial(copy, size=copied, device=device)}
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        ways[f"GEMM {str(dtype).removeprefix('torch.')}"] = partial(gemm, dtype, size=size, device=device)
    ways[TF32] = lambda: _tf32(gemm(torch.float32, size=size, device=device))
    if device == "cuda":
        ways[EXP] = _exp
    effort = Effort(seconds=1.0, min_rounds=3, max_rounds=10 if quick else 40)
    return [Job(Case(name, partial(_alone, make)), effort) for name, make in ways.items()]


def _alone(make: Callable[[], Way]) -> list[Way]:
    return [make()]


def _tf32(way: Way) -> Way:
    """The same with torch's switch for TF32 on."""

    def run() -> Any:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            return way.run()
        finally:
            torch.set_float32_matmul_precision(before)

    return replace(way, name=TF32, run=run)


def _exp() -> Way:
    from vtfast.bench.exp_kernel import exp

    return exp()


if __name__ == "__main__":
    sys.exit(main(jobs))
