"""The CUDA library as compiled here: no warning, no spill, no slow source, small, loadable. Needs nvcc, but no GPU."""

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import ninja
import pybind11
import pytest
import torch
from ptxas_log import Kernel, parse, table

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "cuda-check"
ARCHITECTURES = {"sm_80", "sm_90"}
WANTED_SECONDS, MOST_SECONDS = 30, 60  # of processor time a source; busy machines and old processors take longer
MOST_MIB = 30


def configure(build: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    values = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_MAKE_PROGRAM": str(Path(ninja.BIN_DIR) / "ninja"),
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
        **variables,
    }
    command = ["cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(build), *(f"-D{k}={v}" for k, v in values.items())]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def need_cmake() -> None:
    if shutil.which("cmake") is None:
        pytest.skip("needs cmake")


def need_nvcc() -> None:
    folders = [os.environ.get("PATH", ""), os.path.join(os.environ.get("CUDA_HOME", ""), "bin"), "/usr/local/cuda/bin"]
    if "CUDACXX" not in os.environ and shutil.which("nvcc", path=os.pathsep.join(folders)) is None:
        pytest.skip("needs nvcc")


@pytest.fixture(scope="module")
def records() -> dict[str, dict[str, Any]]:
    """Source -> processor time and output of its compilation, with warnings as errors. Kept between runs."""
    need_cmake()
    need_nvcc()
    done = configure(
        BUILD,
        VTFAST_CUDA="ON",
        TORCH_CUDA_ARCH_LIST="8.0;9.0",
        CMAKE_COMPILE_WARNING_AS_ERROR="ON",
        CMAKE_CUDA_COMPILER_LAUNCHER=f"{sys.executable};{ROOT / 'tests' / 'compiler_log.py'}",
    )
    assert done.returncode == 0, done.stderr
    jobs = os.environ.get("MAX_JOBS", str(os.cpu_count()))
    build = ["cmake", "--build", str(BUILD), "--target", "_kernels_cuda", "--parallel", jobs]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    # pytest shows the whole message, and ptxas says much that is no error.
    said = [line for line in done.stdout.splitlines() if not re.search("ptxas info|bytes stack frame", line)]
    assert done.returncode == 0, "\n".join(said)
    objects = BUILD / "csrc" / "cuda" / "CMakeFiles" / "_kernels_cuda.dir"
    sources = sorted(path.name for path in (ROOT / "csrc" / "cuda").glob("*.cu"))
    assert sources
    return {source: json.loads((objects / f"{source}.o.json").read_text()) for source in sources}


@pytest.fixture(scope="module")
def kernels(records: dict[str, dict[str, Any]]) -> list[Kernel]:
    return [kernel for record in records.values() for kernel in parse(record["output"])]


@pytest.mark.slow
def test_every_kernel_is_compiled_for_every_architecture(kernels: list[Kernel]) -> None:
    compiled = {(kernel.name, kernel.arch) for kernel in kernels}
    assert compiled == {(name, arch) for name, _ in compiled for arch in ARCHITECTURES}
    assert compiled


@pytest.mark.slow
def test_no_kernel_spills(kernels: list[Kernel]) -> None:
    spilling = [kernel for kernel in kernels if not kernel.fits_registers]
    assert not spilling, f"{len(spilling)} of {len(kernels)} kernels spill\n{table(spilling)}"


@pytest.mark.slow
def test_every_source_compiles_quickly(records: dict[str, dict[str, Any]]) -> None:
    seconds = {source: round(record["seconds"], 1) for source, record in records.items()}
    assert max(seconds.values()) <= MOST_SECONDS, seconds
    slow = {source: taken for source, taken in seconds.items() if taken > WANTED_SECONDS}
    if slow:
        warnings.warn(f"took more than {WANTED_SECONDS} s to compile: {slow}", stacklevel=1)


@pytest.mark.slow
@pytest.mark.usefixtures("records")
def test_the_library_is_small_and_stripped() -> None:
    contents = (BUILD / "csrc" / "cuda" / "_kernels_cuda.so").read_bytes()
    assert len(contents) <= MOST_MIB * 2**20
    assert b".symtab\0" not in contents


@pytest.mark.slow
@pytest.mark.usefixtures("records")
def test_the_library_loads_and_registers_its_kernels() -> None:
    """Whatever torch is here: one without CUDA lends it the build's stand-in for libtorch_cuda."""
    folder = BUILD / "csrc" / "cuda"
    code = f"""
import ctypes, torch, vtfast
if torch.version.cuda is None:
    ctypes.CDLL({str(folder / "libtorch_cuda.so")!r})
torch.ops.load_library({str(folder / "_kernels_cuda.so")!r})
differentiable = ("grid_attention", "pooling_attention", "pool_tokens", "pool_qkv", "depthwise_conv3d")
for name in (*differentiable, *(f"{{name}}_backward" for name in differentiable), "rotary_embedding"):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"vtfast::{{name}}", "CUDA"), name
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"VTFAST_CUDA": "maybe"}, "VTFAST_CUDA must be 1 (ON), 0 (OFF) or AUTO, got 'maybe'"),
        ({"VTFAST_CUDA": "1", "TORCH_CUDA_ARCH_LIST": "9.0;Hoppper"}, "got '9.0;Hoppper'"),
        ({"VTFAST_CUDA": "1", "TORCH_CUDA_ARCH_LIST": "7.5"}, "at least 8.0, got '7.5'"),
    ],
    ids=["switch", "syntax", "old"],
)
def test_a_wrong_setting_is_an_error_that_names_it(tmp_path: Path, variables: dict[str, str], expected: str) -> None:
    need_cmake()
    if variables["VTFAST_CUDA"] == "1":
        need_nvcc()
    done = configure(tmp_path, **variables)
    assert done.returncode != 0
    assert expected in " ".join(done.stderr.split())


@pytest.mark.slow
@pytest.mark.parametrize("switch", ["0", "AUTO"])
def test_nothing_of_cuda_is_built_where_it_is_not_wanted(tmp_path: Path, switch: str) -> None:
    need_cmake()
    if switch == "AUTO" and torch.version.cuda is not None:
        pytest.skip("this torch has CUDA")
    done = configure(tmp_path, VTFAST_CUDA=switch)
    assert done.returncode == 0, done.stderr
    assert "_kernels_cuda" not in (tmp_path / "build.ninja").read_text()
