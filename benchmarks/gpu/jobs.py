"""Cases that run one by one in a process of their own, which a crash, a hang or a lost device may take along."""

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from vtfast import use_backend
from vtfast.bench.cuda_meter import meter_for
from vtfast.bench.measure import Case, Effort, NotSupportedError, Way, run_case

Records = list[dict[str, Any]]


@dataclass(frozen=True)
class Job:
    """A case and how it is measured.

    Args:
        case: its ways raise whatever they like; what they raise is reported.
        effort: how long to measure.
        head_start: as in `EventMeter`.
        limit: seconds after which the case counts as hanging.
    """

    case: Case
    effort: Effort = field(default_factory=lambda: Effort(seconds=2.0, min_rounds=5, max_rounds=15))
    head_start: float = 2e-3
    limit: float = 75.0


Jobs = Callable[[str, bool], Sequence[Job]]  # (device, quick)


def natively(way: Way) -> Way:
    """The same on compiled kernels, or an error: never the reference under another name."""

    def run() -> Any:
        with use_backend("native"):
            return way.run()

    return replace(way, run=run)


def main(jobs: Jobs, argv: Sequence[str] | None = None) -> int:
    """Runs the jobs of a module, one JSON line each; 1 if any failed. With --warm, only what compiles, once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, required=True, help="file of JSON lines")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no case after these")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.until is not None:
        _work(jobs(args.device, args.quick), args)
        return 0
    args.output.unlink(missing_ok=True)
    return _supervise(args, [sys.executable, *_module(), *(sys.argv[1:] if argv is None else argv)])


def read(path: Path) -> Records:
    """A record a case: the last one written of it."""
    lines = path.read_text().splitlines() if path.exists() else []
    return list({record["case"]: record for record in map(json.loads, lines)}.values())


def reason(error: Exception, said: Sequence[str] = ()) -> str:
    """One line of why a way cannot do a case."""
    because = [line.split(" (Triggered internally")[0] for line in said]
    because = [line for line in because if "runtime disabled" not in line and "not used because" not in line]
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = "; ".join([lines[0], *dict.fromkeys(because)])
    return f"{'out of memory' if isinstance(error, torch.OutOfMemoryError) else f'refused: {text}'[:240]}"


def _module() -> list[str]:
    spec = sys.modules["__main__"].__spec__
    assert spec is not None
    return ["-m", spec.name]


def _supervise(args: argparse.Namespace, command: Sequence[str]) -> int:
    """Starts processes until every case has a record or the time is over."""
    # Most cases take seconds: none starts so late that it would hardly end.
    until, known = time.time() + args.seconds - min(20.0, args.seconds / 5), -1
    while True:
        records = read(args.output)
        if len(records) == known:
            print("a process ended before it came to a case")
            return 1
        known = len(records)
        status = _watch(subprocess.Popen([*command, "--until", str(until)]), args.output)
        if status == 0:
            break
        for record in read(args.output):
            if record["state"] == "started":
                _write(args.output, record | {"state": "failed", "note": status})
                print(f"{record['case']}: {status}", flush=True)
    failed = [record["case"] for record in read(args.output) if record["state"] == "failed"]
    if failed:
        print(f"{len(failed)} failed: {'; '.join(failed)}")
    return 1 if failed else 0


def _watch(process: "subprocess.Popen[bytes]", output: Path) -> int | str:
    """0, or how the process ended."""
    while (status := process.poll()) is None:
        time.sleep(0.2)
        running = [record for record in read(output) if record["state"] == "started"]
        if running and time.time() > running[-1]["until"]:
            process.kill()
            process.wait()
            return "took too long"
    return f"the process ended with status {status}" if status else 0


def _work(jobs: Sequence[Job], args: argparse.Namespace) -> None:
    known = {record["case"] for record in read(args.output)}
    for job in jobs:
        case = job.case
        if case.name in known:
            continue
        facts = {"case": case.name, "facts": case.facts, "flops": case.flops, "fewest_bytes": case.fewest_bytes}
        if time.time() > args.until:
            _write(args.output, facts | {"state": "not reached"})
            continue
        _write(args.output, facts | {"state": "started", "until": time.time() + job.limit})
        begin = time.perf_counter()
        try:
            results = _warmed(job, args.device) if args.warm else _measured(job, args.device)
            record: dict[str, Any] = {"state": "done", "results": results}
        except SystemExit as lost:
            _write(args.output, facts | {"state": "failed", "note": str(lost)})
            raise
        except Exception as error:
            _give_up_if_lost(args.device, reason(error))
            record = {"state": "failed", "note": reason(error)}
        _write(args.output, facts | record | {"seconds": time.perf_counter() - begin})
        print(
            f"{case.name}: {record['state']} in {time.perf_counter() - begin:.1f} s {record.get('note', '')}",
            flush=True,
        )
        if args.device == "cuda":
            torch.cuda.empty_cache()


def _measured(job: Job, device: str) -> Records:
    case = replace(job.case, ways=lambda: [_guarded(way, device) for way in job.case.ways()])
    return [asdict(result) for result in run_case(case, job.effort, meter_for(device, job.head_start))]


def _warmed(job: Job, device: str) -> Records:
    """Fills the caches of torch.compile."""
    torch.compiler.reset()
    for way in job.case.ways():
        if "compile" in way.name:
            try:
                _guarded(way, device).run()
            except NotSupportedError as error:
                print(f"{job.case.name}, {way.name}: {error}", flush=True)
    return []


def _guarded(way: Way, device: str) -> Way:
    """Whatever the first run raises says that the way cannot do the case."""
    runs = _first_guarded(way, device)
    return replace(way, run=lambda: next(runs)())


def _first_guarded(way: Way, device: str) -> Iterator[Callable[[], Any]]:
    def guarded() -> Any:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                return way.run()
            except NotSupportedError:
                raise
            except Exception as error:
                _give_up_if_lost(device, f"{way.name}: {reason(error)}")
                raise NotSupportedError(reason(error, [str(warning.message) for warning in said])) from None

    yield guarded
    while True:
        yield way.run


def _give_up_if_lost(device: str, because: str) -> None:
    """Ends the process where a kernel has left the device unusable: the next process carries on with the next case."""
    if device == "cuda":
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            raise SystemExit(f"the device is lost; {because}") from error


def _write(path: Path, record: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
