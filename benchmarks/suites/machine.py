"""The ceilings of the machine."""

import torch

from benchmarks import ceilings
from benchmarks.report import Section
from benchmarks.scope import Scope


def run(scope: Scope) -> list[Section]:
    """GEMM rates and copy bandwidth, on one thread and on all."""
    counts = sorted({1, scope.threads})
    rates = {count: ceilings.rates(scope.core_effort, count) for count in counts}
    if ceilings.has_amx():
        for count in counts:
            without = ceilings.rates_without_amx(scope.core_effort, count)
            rates[count]["GEMM bfloat16 without AMX"] = without["GEMM bfloat16"]
    rows = []
    for name in rates[counts[0]]:
        unit = "GB/s" if name == "copy" else "GFLOP/s"
        rows.append([f"{name}, {unit}", *(f"{rates[count][name] / 1e9:.0f}" for count in counts)])
    columns = ["", *(f"{count} thread{'s' * (count > 1)}" for count in counts)]
    notes = (
        "`torch.mm` of 2048 x 2048 matrices; a copy of 512 MiB, read and write counted. Without AMX: the same GEMM "
        f"with ONEDNN_MAX_CPU_ISA={ceilings.WITHOUT_AMX}. torch {torch.__version__}."
    )
    return [Section("Ceilings", notes, columns, rows, [{"threads": n, **rate} for n, rate in rates.items()])]
