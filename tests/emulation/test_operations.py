"""The tests of the operations on the emulated CUDA kernels, each run a process of its own under a sanitizer."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def environment(sanitizer: str, folder: Path, log: Path) -> dict[str, str]:
    """Of a Python, which has no sanitizer itself, that loads the library in `folder`, which has."""
    # A sanitizer looks for C++'s `throw` when it starts, so the library of that has to be there by then.
    runtimes = {"address": "libasan.so", "thread": "libtsan.so"}
    libraries = [
        subprocess.check_output(["g++", f"-print-file-name={name}"], text=True).strip()
        for name in (runtimes[sanitizer], "libstdc++.so.6")
    ]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VTFAST_")}
    return {
        **clean,
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": f"detect_leaks=0:log_path={log}",
        "TSAN_OPTIONS": f"ignore_noninstrumented_modules=1:log_path={log}",
        "ATEN_CPU_CAPABILITY": "default",
        "PYTHONPATH": str(ROOT / "tests"),
        "VTFAST_EMULATION_LIBRARY": str(folder / "_kernels_emulation.so"),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sanitizer", "arch", "seed", "cases"),
    # To the order of threads, float16 is bfloat16.
    [("address", 90, 1, ""), ("thread", 80, 2, "not -float16 and not [float16")],
    ids=["address", "thread"],
)
def test_operations(
    sanitizer: str, arch: int, seed: int, cases: str, build: Callable[[str], Path], tmp_path: Path
) -> None:
    variables = environment(sanitizer, build(sanitizer), tmp_path / "report")
    variables |= {"VTFAST_EMULATION_ARCH": str(arch), "VTFAST_EMULATION_SEED": str(seed)}
    command = [sys.executable, "-m", "pytest", "-p", "emulation.plugin", "--device", "emulation", "-q", "tests/ops"]
    command += ["-k", cases]
    result = subprocess.run(
        command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    reports = [report.read_text() for report in tmp_path.glob("report*")]
    assert not reports, reports[0]
    assert result.returncode == 0, result.stdout
