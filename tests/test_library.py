"""Choosing and loading the compiled library, each choice in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import vtfast
from vtfast import _library

NAMES = ["avx2", "avx512", "avx512_bf16", "amx"]


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("VTFAST_", "ATEN_"))}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=clean | environment, capture_output=True, text=True, timeout=120, check=False)


def build_info(**environment: str) -> dict:
    result = run("import json, vtfast; print(json.dumps(vtfast.build_info()))", **environment)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def best(names: list[str]) -> str | None:
    """The newest of `names` that this processor runs."""
    features = vtfast.build_info()["cpu_supported"]
    return next((name for name in reversed(names) if features.get(name)), None)


@pytest.mark.requires_native
def test_build_info_tells_the_build_and_the_process() -> None:
    info = vtfast.build_info()
    assert info["cpu_built"] == list(info["cpu_supported"]) == list(info["cpu_flags"]) == NAMES
    assert "-mavx512bf16" in info["cpu_flags"]["avx512_bf16"]
    assert "-mavx512bf16" not in info["cpu_flags"]["avx512"]
    assert "-mavx512f" not in info["cpu_flags"]["avx2"]
    assert info["torch_floor"] == "2.11"
    assert info["cpu_instruction_set"] == _library.cpu_instruction_set
    assert info["unavailable"] is None


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="no AVX2")
def test_a_processor_with_avx2_runs_compiled_kernels() -> None:
    assert _library.why_unavailable() is None
    assert _library.cpu_instruction_set in NAMES


@pytest.mark.requires_native
def test_features_agree_with_the_operating_system() -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    wanted = {"avx2": ["avx2", "fma", "f16c"], "avx512": ["avx512f", "avx512bw", "avx512vl", "avx512dq"]}
    wanted["avx512_bf16"] = [*wanted["avx512"], "avx512_bf16"]
    wanted["amx"] = [*wanted["avx512_bf16"], "amx_tile", "amx_bf16"]
    for name, features in wanted.items():
        assert vtfast.build_info()["cpu_supported"][name] == all(feature in flags for feature in features), name


@pytest.mark.requires_native
@pytest.mark.parametrize(
    ("environment", "allowed"),
    [
        ({}, NAMES),
        ({"ATEN_CPU_CAPABILITY": "avx512"}, NAMES),
        ({"ATEN_CPU_CAPABILITY": "avx2"}, ["avx2"]),
        ({"ATEN_CPU_CAPABILITY": "default"}, []),
        ({"VTFAST_CPU_CAPABILITY": "avx512"}, ["avx2", "avx512"]),
        ({"VTFAST_CPU_CAPABILITY": "avx2"}, ["avx2"]),
        ({"ATEN_CPU_CAPABILITY": "avx2", "VTFAST_CPU_CAPABILITY": "avx512"}, ["avx2"]),
    ],
    ids=lambda value: "-".join(value.values()) or "unset" if isinstance(value, dict) else "",
)
def test_the_environment_caps_the_instruction_set(environment: dict[str, str], allowed: list[str]) -> None:
    info = build_info(**environment)
    assert info["cpu_instruction_set"] == best(allowed)
    assert (info["unavailable"] is None) == (best(allowed) is not None)


@pytest.mark.requires_native
def test_an_unknown_cap_is_an_error_that_lists_the_names() -> None:
    result = run("import vtfast", VTFAST_CPU_CAPABILITY="sse9")
    assert result.returncode != 0
    assert "VTFAST_CPU_CAPABILITY must be one of avx2, avx512, avx512_bf16, amx, got 'sse9'" in result.stderr


def test_without_a_library_the_reference_answers_and_says_so_once() -> None:
    code = """
import warnings, torch, vtfast
qkv = torch.randn(1, 2, 4, 4, 24)
call = lambda: vtfast.ops.grid_attention(qkv, (2, 4, 4), num_heads=2, block=(2, 2, 2))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    out = call(), call()
wanted = vtfast.reference.grid_attention(qkv, (2, 4, 4), num_heads=2, block=(2, 2, 2))
torch.testing.assert_close(out[0], wanted)
print([str(warning.message) for warning in caught])
"""
    result = run(code, ATEN_CPU_CAPABILITY="default")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("CPU capability is DEFAULT") == 1


def test_a_package_without_binaries_still_works() -> None:
    code = """
import sys
sys.modules["vtfast._C"] = None  # python's way to make an import fail
import torch, vtfast
info = vtfast.build_info()
assert info["cpu_built"] == [] and info["cpu_instruction_set"] is None, info
assert not info["cuda"]["built"] and not info["cuda"]["loaded"], info
assert "runs without its compiled extension" in info["unavailable"], info
out = vtfast.ops.grid_attention(torch.randn(1, 2, 4, 4, 24), (2, 4, 4), num_heads=2, block=(2, 2, 2))
assert out.shape == (1, 2, 4, 4, 8)
"""
    result = run(code)
    assert result.returncode == 0, result.stderr
    assert "runs without its compiled extension" in result.stderr  # the warning


def test_a_library_that_does_not_load_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "_kernels_avx2.so"
    broken.write_text("not a shared library")
    monkeypatch.delenv("VTFAST_CPU_CAPABILITY", raising=False)
    monkeypatch.setattr(_library, "_library_path", lambda name: tmp_path / f"_kernels_{name}.so")
    monkeypatch.setattr(_library, "_extension", FakeExtension)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    name, reason = _library._load_cpu_library()
    assert name is None
    assert reason is not None
    assert "_kernels_avx2.so does not load" in reason


class FakeExtension:
    @staticmethod
    def processor_features() -> dict[str, bool]:
        return {"avx2": True, "avx512": False}


CUDA_BUILD = {"compiler": "NVIDIA 13.0.88", "architectures": ["8.0", "9.0+PTX"]}


@pytest.mark.parametrize(
    ("build", "file", "torch_cuda", "expected"),
    [
        (None, None, "13.0", "this build has no CUDA kernels"),
        (None, "left over from another build", "13.0", "this build has no CUDA kernels"),
        (CUDA_BUILD, None, "13.0", "this build has no CUDA kernels"),
        (CUDA_BUILD, "not a shared library", None, "has no CUDA"),
        (CUDA_BUILD, "not a shared library", "13.0", "_kernels_cuda.so does not load"),
    ],
)
def test_cuda_kernels_that_are_not_loaded_say_why(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    build: dict[str, object] | None,
    file: str | None,
    torch_cuda: str | None,
    expected: str,
) -> None:
    if file is not None:
        (tmp_path / "_kernels_cuda.so").write_text(file)
    monkeypatch.setattr(_library, "_library_path", lambda name: tmp_path / f"_kernels_{name}.so")
    monkeypatch.setattr(_library, "_extension", SimpleNamespace(build_info=lambda: {"cuda": build}))
    monkeypatch.setattr(torch.version, "cuda", torch_cuda)
    assert expected in str(_library._load_cuda_library())


@pytest.mark.parametrize(
    ("architectures", "capabilities"),
    [
        (["8.0"], [(8, 0), (8, 6), (8, 9)]),
        (["8.6"], [(8, 6), (8, 9)]),
        (["8.0", "9.0"], [(8, 0), (8, 6), (8, 9), (9, 0)]),
        (["9.0a"], [(9, 0)]),
        (["9.0a+PTX"], [(9, 0)]),
        (["8.0", "9.0+PTX"], [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)]),
        (["10.0f"], [(10, 0)]),
        ([], []),
    ],
)
def test_a_gpu_runs_what_was_compiled_for_it(
    architectures: list[str], capabilities: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_library._unavailable, "cuda", None)
    monkeypatch.setattr(_library, "_architectures", architectures)
    for capability in [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)]:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, capability=capability: capability)
        reason = _library.why_unavailable(torch.device("cuda", 1))
        assert (reason is None) == (capability in capabilities), capability
        assert reason is None or f"cuda:1 has compute capability {capability[0]}.{capability[1]}" in reason


def test_the_reason_is_no_part_of_a_compiled_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    def capability(device: torch.device) -> tuple[int, int]:
        assert not torch.compiler.is_dynamo_compiling()
        return 7, 5

    monkeypatch.setitem(_library._unavailable, "cuda", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", capability)

    @torch.compile(fullgraph=True, backend="eager")
    def zero_if_available(x: torch.Tensor) -> torch.Tensor:
        return x if _library.why_unavailable(torch.device("cuda", 0)) else x * 0

    assert zero_if_available(torch.ones(1)) == 1


@pytest.mark.requires_native
def test_libraries_name_libtorch_and_no_other_openmp() -> None:
    # torch loads its libraries RTLD_LOCAL, so the symbols must come through our own NEEDED entry; a second OpenMP
    # runtime would start a second pool of threads.
    for name in _library.build_info()["cpu_built"]:
        contents = _library._library_path(name).read_bytes()
        assert b"libtorch_cpu.so\0" in contents
        assert b"libgomp" not in contents
        assert b"libomp" not in contents


def test_import_is_quick() -> None:
    code = """
import time, torch
start = time.process_time()  # whatever else the machine does
import vtfast
print(time.process_time() - start)
"""
    assert min(float(run(code).stdout) for _ in range(3)) < 0.3
