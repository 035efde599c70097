"""Builds of the emulation, each once a session, and how their sanitizers come into a process."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import ninja
import pytest

SOURCE = Path(__file__).resolve().parent
ROOT = SOURCE.parents[1]


@pytest.fixture(scope="session")
def build() -> Callable[[str], Path]:
    """Given a sanitizer, "address" or "thread": the folder of `self_check` and `_kernels_emulation.so`."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the emulation switches stacks on x86-64 only")
    return cache(_build)


def _build(sanitizer: str) -> Path:
    """Outlives the session, so that the next one compiles only what changed."""
    folder = ROOT / "build" / f"emulation-{sanitizer}"
    definitions = {
        "CMAKE_CXX_COMPILER": "g++",
        "CMAKE_MAKE_PROGRAM": Path(ninja.BIN_DIR) / "ninja",
        "Python_EXECUTABLE": sys.executable,
        "VTFAST_EMULATION_SANITIZER": sanitizer,
    }
    options = [f"-D{name}={value}" for name, value in definitions.items()]
    _run("cmake", "-G", "Ninja", "-S", SOURCE, "-B", folder, *options)
    _run("cmake", "--build", folder, "--parallel", os.environ.get("MAX_JOBS", str(os.cpu_count())))
    return folder


def _run(*command: str | Path) -> None:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert result.returncode == 0, result.stdout
