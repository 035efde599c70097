"""The build of the emulation, once a session, and how its sanitized libraries come into a process."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import ninja
import pytest

SOURCE = Path(__file__).resolve().parent
ROOT = SOURCE.parents[1]


@pytest.fixture(scope="session")
def emulation_build() -> Path:
    """Folder of `self_check` and `_kernels_emulation.so`; only what changed since the last session is compiled."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the emulation switches stacks on x86-64 only")
    build = ROOT / "build" / "emulation"
    definitions = {
        "CMAKE_CXX_COMPILER": "g++",
        "CMAKE_MAKE_PROGRAM": Path(ninja.BIN_DIR) / "ninja",
        "Python_EXECUTABLE": sys.executable,
    }
    options = [f"-D{name}={value}" for name, value in definitions.items()]
    run("cmake", "-G", "Ninja", "-S", SOURCE, "-B", build, *options)
    run("cmake", "--build", build, "--parallel", os.environ.get("MAX_JOBS", str(os.cpu_count())))
    return build


def run(*command: str | Path) -> None:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.fixture(scope="session")
def sanitizer_environment() -> dict[str, str]:
    """What a process needs whose main program does not link the address sanitizer, but a library of which does."""
    # The sanitizer looks for C++'s `throw` when it starts, so its library has to be there by then.
    libraries = [
        subprocess.check_output(["g++", f"-print-file-name={name}"], text=True).strip()
        for name in ("libasan.so", "libstdc++.so.6")
    ]
    return {"LD_PRELOAD": " ".join(libraries), "ASAN_OPTIONS": "detect_leaks=0"}
