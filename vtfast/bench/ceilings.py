"""What the machine can do at most: the yardsticks that figures are put against, measured in the same run."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from vtfast import _library
from vtfast.bench.cuda_meter import meter_for
from vtfast.bench.measure import Case, Effort, Way, run_case
from vtfast.bench.results import rates_of

_SIZE = 2048
_COPIED = 512 * 2**20
_ARGUMENTS, _ROUNDS = 2**16, 4096
THOROUGH, QUICK = Effort(seconds=3.0, max_rounds=15), Effort(seconds=1.0, min_rounds=3, max_rounds=5)

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


def exp(threads: int | None = None, device: str = "cpu") -> Way | None:
    """Nothing but exponentials in float32, of which `flops` counts the number; None where nothing can take them.

    On the CPU those of the kernels, in the library that is loaded: `torch.exp` is slower. On a GPU those of Triton.
    """
    if torch.device(device).type == "cuda":
        if find_spec("triton") is None:
            return None
        from vtfast.bench import exp_kernel

        return exp_kernel.exp()
    if _library.why_unavailable() is not None:
        return None
    x = torch.randn(_ARGUMENTS)
    return Way("exp", lambda: torch.ops.vtfast.repeated_exp(x, _ROUNDS), threads=threads, flops=_ARGUMENTS * _ROUNDS)


def rates(device: str = "cpu", effort: Effort = THOROUGH) -> dict[str, float]:
    """Units a second of every yardstick that there is, on the threads of this process.

    FLOP/s of GEMMs, bytes/s of the copy, exponentials/s; on a processor with matrix tiles also the FLOP/s of a bfloat16
    GEMM without them.
    """
    ways = [gemm(torch.float32, device=device), gemm(torch.bfloat16, device=device), copy(device=device)]
    exponentials = exp(device=device)
    found = _rates(ways if exponentials is None else [*ways, exponentials], effort, device)
    if device == "cpu" and has_amx():
        found["GEMM bfloat16 without AMX"] = rate_without_amx(effort, torch.get_num_threads())
    return found


def _rates(ways: Sequence[Way], effort: Effort, device: str = "cpu") -> dict[str, float]:
    return rates_of(run_case(Case("ceilings", lambda: ways), effort, meter_for(device)))


def has_amx() -> bool:
    """Whether the processor has matrix tiles for bfloat16, which a GEMM then uses."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "amx_bf16" in cpuinfo.read_text().split()


def rate_without_amx(effort: Effort, threads: int) -> float:
    """FLOP/s of a bfloat16 GEMM in a fresh process whose oneDNN stops at AVX-512 with bfloat16."""
    env = os.environ | {"ONEDNN_MAX_CPU_ISA": WITHOUT_AMX}
    request = json.dumps({"seconds": effort.seconds, "threads": threads})
    command = [sys.executable, "-m", "vtfast.bench.ceilings", request]
    answer = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    return float(json.loads(answer)["GEMM bfloat16"])


if __name__ == "__main__":
    _request = json.loads(sys.argv[1])
    torch.set_num_threads(_request["threads"])
    print(json.dumps(_rates([gemm(torch.bfloat16)], Effort(seconds=_request["seconds"]))))
