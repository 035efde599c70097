"""The tests of the operations on the emulated CUDA kernels, each run a process of its own under a sanitizer."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
        "OMP_WAIT_POLICY": "passive",  # threads that wait would keep the other runs' from working
        "PYTHONPATH": str(ROOT / "tests"),
        "VTFAST_EMULATION_LIBRARY": str(folder / "_kernels_emulation.so"),
    }


@dataclass
class Run:
    """A process under a sanitizer, what it prints and what the sanitizer reports."""

    process: "subprocess.Popen[bytes]"
    folder: Path

    def output(self) -> str:
        self.process.wait()
        return (self.folder / "output").read_text()

    def reports(self) -> list[str]:
        return [report.read_text() for report in self.folder.glob("report*")]


# What to that of threads is one more time the same: values, and the ways by which torch comes to call a kernel.
ONCE = ["-float16", "[float16", "finite", "nan_does", "huge", "rounded_once", "transforms"]
OF_THREADS = "".join(f" and not {name}" for name in ONCE)
# Sanitizer, architecture, order of threads, and tests. To a sanitizer float16 is bfloat16: each has one of them. That
# of threads is slow enough for two.
RUNS = {
    "address": ("address", 90, 1, "not bfloat16"),
    "threads, grid attention": ("thread", 80, 2, f"not pool{OF_THREADS}"),
    "threads, pooling": ("thread", 80, 3, f"pool{OF_THREADS}"),
}


@pytest.fixture(scope="module")
def runs(build: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """All of them side by side: each has one busy thread."""
    started: dict[str, Run] = {}
    try:
        for name, (sanitizer, arch, seed, cases) in RUNS.items():
            folder = tmp_path_factory.mktemp(sanitizer)
            variables = environment(sanitizer, build(sanitizer), folder / "report")
            variables |= {"VTFAST_EMULATION_ARCH": str(arch), "VTFAST_EMULATION_SEED": str(seed)}
            command = [sys.executable, "-m", "pytest", "-p", "emulation.plugin", "--device", "emulation", "-q"]
            with (folder / "output").open("wb") as output:
                process = subprocess.Popen(
                    [*command, "tests/ops", "-k", cases], cwd=ROOT, env=variables, stdout=output, stderr=output
                )
            started[name] = Run(process, folder)
        yield started
    finally:
        for run in started.values():
            run.process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_operations(name: str, runs: dict[str, Run]) -> None:
    run = runs[name]
    output = run.output()
    assert not run.reports(), run.reports()[0]
    assert run.process.returncode == 0, output
