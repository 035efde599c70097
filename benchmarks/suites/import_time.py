"""How long `import vtfast` takes."""

import statistics
import subprocess
import sys

from benchmarks.report import Section
from benchmarks.scope import Scope

ALLOCATORS = ("default",)

_SCRIPT = """
import time
start = time.perf_counter()
import torch
middle = time.perf_counter()
import vtfast
print(middle - start, time.perf_counter() - middle)
"""


def run(scope: Scope) -> list[Section]:
    """Medians over fresh processes; a first one, which may have to read files from the disk, is left out."""
    times = [_once() for _ in range(4 if scope.quick else 8)][1:]
    torch_time, vtfast_time = (statistics.median(column) for column in zip(*times, strict=True))
    rows = [["`import torch`", f"{torch_time:.2f}"], ["`import vtfast` after it", f"{vtfast_time:.2f}"]]
    data = [{"torch": a, "vtfast": b} for a, b in times]
    return [Section("Import time", "Fresh processes, files in cache.", ["", "s"], rows, data)]


def _once() -> tuple[float, float]:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], check=True, capture_output=True, text=True)
    first, second = map(float, done.stdout.split())
    return first, second
