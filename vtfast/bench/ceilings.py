"""What the machine can do at most: the yardsticks that figures are put against, measured in the same run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.measure import Case, Effort, Way, run_case

_SIZE = 2048
_COPIED = 512 * 2**20

# The newest instructions of torch's GEMM that the kernels of vtfast also use: no matrix tiles (AMX).
WITHOUT_AMX = "AVX512_CORE_BF16"


def gemm(dtype: torch.dtype, threads: int | None = None, size: int = _SIZE, device: str = "cpu") -> Way:
    """`torch.mm` of two square matrices, as a way to put into any case."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    name = f"GEMM {str(dtype).removeprefix('torch.')}"
    return Way(name, lambda: torch.mm(a, b), threads=threads, flops=2 * size**3)


def copy(threads: int | None = None, size: int = _COPIED, device: str = "cpu") -> Way:
    """A copy out of cache; `flops` counts the bytes read and written."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return Way("copy", lambda: target.copy_(source), threads=threads, flops=2 * size)


def rates(effort: Effort, threads: int | None = None, only_gemm: bool = False) -> dict[str, float]:
    """Units a second of every yardstick: FLOP/s of GEMMs, bytes/s of the copy."""
    ways = [gemm(torch.float32, threads), gemm(torch.bfloat16, threads), *([] if only_gemm else [copy(threads)])]
    results = run_case(Case("ceilings", lambda: ways), effort)
    return {r.way: r.flops / r.timing.median for r in results if r.timing is not None and r.flops is not None}


def has_amx() -> bool:
    """Whether the processor has matrix tiles for bfloat16, which a GEMM then uses."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "amx_bf16" in cpuinfo.read_text().split()


def rates_without_amx(effort: Effort, threads: int) -> dict[str, float]:
    """GEMM rates of a fresh process whose oneDNN stops at AVX-512 with bfloat16."""
    env = os.environ | {"ONEDNN_MAX_CPU_ISA": WITHOUT_AMX}
    request = json.dumps({"seconds": effort.seconds, "threads": threads})
    command = [sys.executable, "-m", "benchmarks.ceilings", request]
    return json.loads(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    _request = json.loads(sys.argv[1])
    torch.set_num_threads(_request["threads"])
    print(json.dumps(rates(Effort(seconds=_request["seconds"]), only_gemm=True)))
