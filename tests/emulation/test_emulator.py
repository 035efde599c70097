"""The emulator itself: instructions do what the PTX ISA says, and mistakes planted in kernels are found."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent
CUDA = SOURCE.parents[1] / "csrc" / "cuda"
SEEDS = range(1, 6)
Build = Callable[[str], Path]

CORRECT = [
    "bf16_rounding",
    "f16_rounding",
    "float_of_half",
    "ex2",
    "mma_bf16",
    "mma_f16",
    "ldmatrix",
    "ldmatrix_trans",
    "shuffles",
    "copies",
    "indices",
]
# Kernels that keep the rules, each the twin of one below.
HARMLESS = [
    "barrier",
    "barrier_before_overwriting",
    "warp_barrier",
    "copy_async",
    "shared_read",
    "global_read",
    "copy_async_global",
    "barrier_of_the_living",
    "launch",
]
MISTAKES = {
    "no_barrier": "wrong: element .* is -?nan",
    "no_barrier_before_overwriting": "wrong: element .* is 0.0",
    "no_warp_barrier": "wrong: element .* is -?nan",
    "copy_async_not_waited_for": "wrong: element .* is -?nan",
    "shared_read_out_of_bounds": r"AddressSanitizer: heap-buffer-overflow(.|\n)*READ of size 4(.|\n)*read_shared",
    "global_read_out_of_bounds": r"AddressSanitizer: heap-buffer-overflow(.|\n)*READ of size 4(.|\n)*read_global",
    "copy_async_out_of_bounds": r"AddressSanitizer: heap-buffer-overflow(.|\n)*READ of size 16(.|\n)*copy_async_global",
    "copy_async_past_shared": "cp_async: the address is not in the shared memory",
    "copy_async_unaligned": "cp_async: the address in global memory is not aligned",
    "ldmatrix_unaligned": "ldmatrix_x4: the address in shared memory is not aligned",
    "ldmatrix_past_shared": "ldmatrix_x4: the address is not in the shared memory",
    "divided_warp": "warp . is divided: lane 0: shuffle, lane 1: __syncwarp",
    "returned_early": "warp 2 is divided: lane 0: shuffle, lane 13: has returned",
    "barrier_against_shuffle": "is divided: lane 0: shuffle, lane 5: __syncthreads",
    "stack_too_small": "AddressSanitizer|more stack than its fiber has",
    "too_much_shared_memory": "232464 bytes of shared memory; a block may have 232448",
    "too_many_threads": "a block of 1056 threads",
    "half_a_warp": "a block of 48 threads",
}


# What the thread sanitizer calls a race, whether or not an order shows it.
RACES = ["no_barrier", "no_barrier_before_overwriting", "no_warp_barrier", "shuffle_instead_of_barrier"]


def run(folder: Path, *arguments: str, seed: int = 1, arch: int = 90) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "VTFAST_EMULATION_SEED": str(seed), "VTFAST_EMULATION_ARCH": str(arch)}
    command = [folder / "self_check", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_every_case_is_run(build: Build) -> None:
    cases = {*CORRECT, *HARMLESS, *MISTAKES, *RACES}
    assert sorted(run(build("address")).stdout.split()) == sorted(cases)


@pytest.mark.parametrize("name", CORRECT)
def test_instructions(name: str, build: Build) -> None:
    result = run(build("address"), name)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
@pytest.mark.parametrize("name", HARMLESS)
def test_kernels_that_keep_the_rules(name: str, sanitizer: str, build: Build) -> None:
    for seed in SEEDS:
        result = run(build(sanitizer), name, seed=seed)
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_found_in_every_order(name: str, build: Build) -> None:
    for seed in SEEDS:
        result = run(build("address"), name, seed=seed)
        assert result.returncode != 0
        assert re.search(MISTAKES[name], result.stderr), result.stderr


def test_shared_memory_is_that_of_the_architecture(build: Build) -> None:
    result = run(build("address"), "launch", arch=80)
    assert result.returncode != 0
    assert "232448 bytes of shared memory; a block may have 166912" in result.stderr


@pytest.mark.parametrize("name", RACES)
def test_races_are_found_in_every_order(name: str, build: Build) -> None:
    for seed in SEEDS:
        result = run(build("thread"), name, seed=seed)
        assert result.returncode != 0
        assert "ThreadSanitizer: data race" in result.stderr


@pytest.mark.parametrize(("header", "name"), [("launch.cuh", "launch"), ("ptx.cuh", "")])
def test_stand_ins_offer_what_they_stand_in_for(header: str, name: str) -> None:
    original = {declaration for declaration in declarations(CUDA / header) if f" {name}" in declaration}
    assert original
    assert original <= declarations(SOURCE / "cuda" / header)


def declarations(path: Path) -> set[str]:
    """The functions at namespace level that a header offers kernels, with the types of their parameters."""
    code = re.sub(r"//.*", "", path.read_text()).replace("__device__ ", "")
    found = re.findall(r"^(?:template <[^>]*>\n)?(?:inline )?\w+\*? \w+\((?:[^()]|\([^()]*\))*\)(?= \{)", code, re.M)
    text = [re.sub(r"/\*|\*/", "", declaration.replace("inline ", "")) for declaration in found]
    return {re.sub(r"\s+", " ", declaration) for declaration in text}
