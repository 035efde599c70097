"""Everything there is to learn from a machine with a GPU, in one run of under nine minutes: `make gpu`.

Builds, tests, looks for bad accesses and races, measures the ceilings and vtfast against its peers, and reports. Each
stage is a process with a time limit of its own and a log; none stops the others. The report goes to
benchmarks/results/<device>/, logs and raw records to build/gpu/.
"""

import argparse
import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.gpu import report
from benchmarks.gpu.probe import slug
from benchmarks.gpu.stages import Outcome, Stage, run_stages

_ROOT = Path(__file__).parents[2]
_LOG_CHARACTERS = 500_000  # of each, the last ones


def main(argv: Sequence[str] | None = None) -> int:
    """0 if every stage is ok or had a reason to be skipped."""
    args = _parser().parse_args(argv)
    scratch: Path = args.scratch.resolve()
    shutil.rmtree(scratch, ignore_errors=True)
    (scratch / "report").mkdir(parents=True)
    os.chdir(_ROOT)
    _set_environment(scratch)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    outcomes: list[Outcome] = []
    try:
        for outcome in run_stages(plan(args, scratch), scratch, lambda stage: print(f"{stage.name} ...", flush=True)):
            outcomes.append(outcome)
            print(f"{outcome.stage}: {outcome.status}, {outcome.seconds:.0f} s. {outcome.note}", flush=True)
            (scratch / "stages.json").write_text(json.dumps([asdict(outcome) for outcome in outcomes]))
    finally:
        results = report.gather(scratch)
        report.write(scratch, scratch / "report")
        folder = _publish(args, scratch, results["device"]["name"])
        print(f"\n{report.summary(results)}\nwritten to {folder}", flush=True)
    return 0 if all(outcome.status in ("ok", "skipped") for outcome in outcomes) else 1


def plan(args: argparse.Namespace, scratch: Path) -> list[list[Stage]]:
    """Groups one after the other, their stages side by side; the limits add up to less than nine minutes."""
    device, quick = args.device, ["--quick"] if args.quick else []

    def stage(name: str, module: str, *arguments: object, limit: float, **more: object) -> Stage:
        command = [sys.executable, "-u", "-m", f"benchmarks.gpu.{module}", *map(str, arguments)]
        return Stage(name, command, limit, **more)  # type: ignore[arg-type]

    def jobs(module: str, limit: float, warm: bool = False) -> Stage:
        name = f"{module}-warm" if warm else module
        flags = ["--output", scratch / f"{name}.jsonl", "--device", device, "--seconds", "{seconds}", *quick]
        return stage(name, module, *flags, *["--warm"] * warm, limit=limit, elastic=not warm, needs=("probe",))

    built = {"needs": ("probe", "build")}
    groups = [
        [stage("probe", "probe", device, scratch / "probe.json", limit=30)],
        [stage("build", "build", limit=110)],
        [
            stage("tests", "correctness", device, scratch / "tests.jsonl", *quick, limit=115, **built),
            stage("memcheck", "sanitize", "memcheck", device, limit=115, **built),
            stage("racecheck", "sanitize", "racecheck", device, limit=115, **built),
            # What torch.compile makes of the peers stays in its cache for the stages that are timed.
            *([] if args.quick else [jobs(name, 115, warm=True) for name in ("models", "attention")]),
        ],
        [jobs("ceilings", 20)],
        [jobs("models", 85)],
        [jobs("attention", 105)],
        [jobs("depthwise", 35)],
        [stage("roofline", "roofline", scratch, scratch / "report" / report.PICTURE, limit=20)],
    ]
    left = [[stage for stage in group if stage.name not in args.skip] for group in groups]
    return [group for group in left if group]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a dry run, kept in --scratch")
    parser.add_argument("--quick", action="store_true", help="a few small cases of each kind")
    parser.add_argument("--skip", nargs="*", default=[], metavar="STAGE", help="stages to leave out")
    parser.add_argument("--output", type=Path, metavar="DIR", help="copy the report and all logs there as well")
    parser.add_argument("--scratch", type=Path, default=_ROOT / "build" / "gpu", metavar="DIR", help="emptied first")
    return parser


def _set_environment(scratch: Path) -> None:
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    os.environ["PYTHONUNBUFFERED"] = "1"
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(scratch / "inductor")
    os.environ["TORCHINDUCTOR_FX_GRAPH_CACHE"] = os.environ["TORCHINDUCTOR_AUTOGRAD_CACHE"] = "1"
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "4"  # two processes compile while the tests run
    os.environ["TRITON_CACHE_DIR"] = str(scratch / "triton")


def _publish(args: argparse.Namespace, scratch: Path, device: str) -> Path:
    """Copies the report to where it belongs, and with all logs in one file to --output."""
    made = scratch / "report"
    folder = (
        made if args.device == "cpu" or device == report.UNKNOWN else _ROOT / "benchmarks" / "results" / slug(device)
    )
    for target in {folder, args.output} - {None, made}:
        target.mkdir(parents=True, exist_ok=True)
        for path in made.iterdir():
            shutil.copy(path, target / path.name)
    if args.output is not None:
        logs = {path.name: path.read_text(errors="replace") for path in sorted(scratch.glob("*.log"))}
        joined = "\n".join(f"==== {name}\n{text[-_LOG_CHARACTERS:]}" for name, text in logs.items())
        (args.output / "logs.txt").write_text(joined)
    return folder


if __name__ == "__main__":
    sys.exit(main())
