"""`make gpu-profile`: what the hardware counters say of vtfast's kernels, by ncu; without it, torch's profiler.

Writes profile.md and ncu's tables as CSV to benchmarks/results/<device>/.
"""

import argparse
import csv
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.gpu.probe import slug
from benchmarks.gpu.profile_target import SHAPES
from benchmarks.gpu.stages import Stage, run_stages

_ROOT = Path(__file__).parents[2]
_LIMIT = 110.0  # seconds of one look at one shape
_ALL = 500.0  # seconds of everything

_SECTIONS = (
    "SpeedOfLight", "LaunchStats", "Occupancy", "ComputeWorkloadAnalysis", "MemoryWorkloadAnalysis",
    "MemoryWorkloadAnalysis_Tables", "SchedulerStats", "WarpStateStats", "InstructionStats",
)  # fmt: skip

_MORE = ("l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum", "smsp__issue_active.avg.pct_of_peak_sustained_active")

# Row of the summary -> what its counters are called on one generation of GPUs or another; the largest counts.
METRICS: Mapping[str, str] = {
    "time, us": r"gpu__time_duration\.sum",
    "memory, % of peak": r"(gpu__)?dram__?throughput\.avg\.pct_of_peak_sustained_elapsed",
    "multiprocessors, % of peak": r"sm__throughput\.avg\.pct_of_peak_sustained_elapsed",
    "warps resident, %": r"sm__warps_active\.avg\.pct_of_peak_sustained_active",
    "tensor pipe, %": r"sm__(inst_executed_)?pipe_tensor\w*\.avg\.pct_of_peak_sustained_active",
    "exponential (xu) pipe, %": r"sm__inst_executed_pipe_xu\w*\.avg\.pct_of_peak_sustained_active",
    "fma pipe, %": r"sm__(inst_executed_)?pipe_fma\w*\.avg\.pct_of_peak_sustained_active",
    "issue slots, %": r"(smsp__issue_active|sm__inst_issued)\.avg\.pct_of_peak_sustained_active",
    "shared-memory bank conflicts": r"l1tex__data_bank_conflicts_pipe_lsu\w*\.sum",
    "registers a thread": r"launch__registers_per_thread",
    "shared memory a block, KiB": r"launch__shared_mem_per_block",
    "blocks": r"launch__grid_size",
    "threads a block": r"launch__block_size",
}
_FACTORS = {"time, us": 1e-3, "shared memory a block, KiB": 1 / 1024}  # from ncu's base units
_STALL = re.compile(r"smsp__average_warps?_\w*issue_stalled_(?!\w*not_issued)(\w+?)_per_issue_active\.ratio")
_SHOWN_STALLS = 5

_BEGIN = time.monotonic()

Kernel = Mapping[str, str]  # column -> value, as ncu writes them


def main(argv: Sequence[str] | None = None) -> int:
    """0 if either profiler said something of every shape."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.profile", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a dry run, kept in --scratch")
    parser.add_argument("--output", type=Path, metavar="DIR", help="copy the results there as well")
    parser.add_argument("--scratch", type=Path, default=_ROOT / "build" / "gpu-profile", metavar="DIR")
    args = parser.parse_args(argv)
    os.chdir(_ROOT)
    scratch: Path = args.scratch.resolve()
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    device = _device(args.device, scratch)
    shapes = range(len(SHAPES) if args.device == "cuda" else 1)
    parts = [f"# Kernels on {device}\n\nWritten by `make gpu-profile`: bfloat16, forward and backward.\n"]
    for number in shapes:
        parts.append(f"## {SHAPES[number].name}\n\n{_look_at(number, args.device, scratch)}\n")
        (scratch / "profile.md").write_text("\n".join(parts))
    print("\n".join(parts))
    folder = scratch if args.device == "cpu" else _ROOT / "benchmarks" / "results" / slug(device)
    for target in {folder, args.output} - {None, scratch}:
        target.mkdir(parents=True, exist_ok=True)
        for path in (scratch / "profile.md", *scratch.glob("*.csv")):
            shutil.copy(path, target / path.name)
    print(f"written to {folder}")
    return 0 if all("Nothing" not in part for part in parts) else 1


def kernels_of(text: str) -> list[Kernel]:
    """The rows of ncu's raw page as CSV, whatever stands before it; the second line holds units."""
    lines = text.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith('"ID"')), None)
    return [] if start is None else [row for row in csv.DictReader(lines[start:]) if row["ID"].strip()]


def table_of(kernels: Sequence[Kernel]) -> str:
    """A column a kernel, a row a figure, and what kept its warps waiting."""
    names = [re.sub(r"[<(].*", "", kernel["Kernel Name"]).split("::")[-1] for kernel in kernels]
    rows = [["", *(f"{number}: {name}" for number, name in enumerate(names))]]
    for title, pattern in METRICS.items():
        rows.append([title, *(_cell(title, pattern, kernel) for kernel in kernels)])
    stalls = [_stalls(kernel) for kernel in kernels]
    for rank in range(_SHOWN_STALLS):
        found = [stall[rank] if rank < len(stall) else "-" for stall in stalls]
        rows.append([f"stall {rank + 1}, warps waiting per issue", *found])
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(title: str, pattern: str, kernel: Kernel) -> str:
    found = [
        value for name, text in kernel.items() if re.fullmatch(pattern, name) and (value := _value(text)) is not None
    ]
    return f"{max(found) * _FACTORS.get(title, 1):.4g}" if found else "-"


def _stalls(kernel: Kernel) -> list[str]:
    found = {match[1]: _value(text) or 0.0 for name, text in kernel.items() if (match := _STALL.fullmatch(name))}
    return [f"{name} {found[name]:.2f}" for name in sorted(found, key=lambda name: -found[name])]


def _value(text: str | None) -> float | None:
    try:
        return float((text or "").replace(",", ""))
    except ValueError:
        return None


def _look_at(number: int, device: str, scratch: Path) -> str:
    """Ncu's figures, or why there are none and torch's times."""
    program, why = _ncu(), "ncu is not installed"
    if program is not None and device == "cuda":
        for name, options in _attempts():
            report = scratch / f"{number}-{name}.ncu-rep"
            command = [program, "--clock-control", "none", *options, "--force-overwrite", "--export", str(report)]
            why = _run(f"{number}-{name}", [*command, *_target(number, device)], scratch)
            kernels = kernels_of(_imported(program, report)) if report.exists() else []
            if kernels:
                (scratch / f"profile-{number}.csv").write_text(_imported(program, report))
                return table_of(kernels)
    times = scratch / f"times-{number}.json"
    torch_says = _run(f"{number}-torch", _target(number, device, str(times)), scratch)
    if not times.exists():
        return f"Nothing: {why}; torch.profiler: {torch_says}"
    ordered = sorted(json.loads(times.read_text()).items(), key=lambda item: -item[1])[:20]
    rows = "\n".join(f"| {name.replace('|', '/')[:120]} | {microseconds:.1f} |" for name, microseconds in ordered)
    return f"No hardware counters ({why}); times by torch.profiler.\n\n| kernel | us |\n| --- | --- |\n{rows}"


def _attempts() -> Iterator[tuple[str, list[str]]]:
    """Options from the ones that say most to the ones that any version takes."""
    only_ours = ["--target-processes", "all", "--kernel-name-base", "demangled", "--kernel-name", "regex:vtfast"]
    sections = [option for section in _SECTIONS for option in ("--section", section)]
    more = [
        "--metrics",
        "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum,smsp__issue_active.avg.pct_of_peak_sustained_active",
    ]
    yield "sections-and-more", [*only_ours, *sections, *more]
    yield "sections", [*only_ours, *sections]
    yield "basic", ["--set", "basic"]


def _run(name: str, command: Sequence[str], scratch: Path) -> str:
    limit = min(_LIMIT, _ALL - (time.monotonic() - _BEGIN))
    if limit <= 0:
        return "no time is left"
    (outcome,) = run_stages([[Stage(name, command, limit)]], scratch)
    print(f"{name}: {outcome.status}, {outcome.seconds:.0f} s. {outcome.note}", flush=True)
    return outcome.note or outcome.status


def _imported(program: str, report: Path) -> str:
    command = [program, "--import", str(report), "--page", "raw", "--csv", "--print-units", "base"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout


def _target(number: int, device: str, *output: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.gpu.profile_target", str(number), device, *output]


def _ncu() -> str | None:
    folders = ["/usr/local/cuda/bin", *sorted(glob.glob("/opt/nvidia/nsight-compute/*"), reverse=True)]
    return shutil.which("ncu", path=os.pathsep.join([os.environ.get("PATH", os.defpath), *folders]))


def _device(device: str, scratch: Path) -> str:
    path = scratch / "probe.json"
    _run("probe", [sys.executable, "-m", "benchmarks.gpu.probe", device, str(path)], scratch)
    return json.loads(path.read_text())["name"] if path.exists() else "unknown"


if __name__ == "__main__":
    sys.exit(main())
