"""The tests of the operations on the emulated CUDA kernels, under the address sanitizer, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "seed"), [(80, 1), (90, 2)])
def test_operations(arch: int, seed: int, emulation_build: Path, sanitizer_environment: dict[str, str]) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VTFAST_")}
    environment = {
        **clean,
        **sanitizer_environment,
        "ATEN_CPU_CAPABILITY": "default",
        "PYTHONPATH": str(ROOT / "tests"),
        "VTFAST_EMULATION_LIBRARY": str(emulation_build / "_kernels_emulation.so"),
        "VTFAST_EMULATION_ARCH": str(arch),
        "VTFAST_EMULATION_SEED": str(seed),
    }
    command = [sys.executable, "-m", "pytest", "-p", "emulation.plugin", "--device", "emulation", "-q", "tests/ops"]
    result = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert result.returncode == 0, result.stdout
