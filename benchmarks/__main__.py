"""`python -m benchmarks`: runs the suites, prints their tables and writes them under benchmarks/results/<machine>/."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks import allocator, environment, suites
from benchmarks.report import Section
from benchmarks.worker import Request

_RESULTS = Path(__file__).parent / "results"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmarks; 1 if a suite failed."""
    args = _parser().parse_args(argv)
    folder = args.output or _RESULTS / args.machine
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ("quick.json" if args.quick else "full.json")
    # A run of some suites replaces their results and keeps those of the others.
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    status = 0
    for name in args.suites or (suites.quick_suite_names() if args.quick else suites.suite_names()):
        for which in _allocators(args, name):
            start = time.perf_counter()
            request = Request(name, which, args.quick, not args.no_compile, args.threads)
            try:
                result = _in_fresh_process(request)
            except subprocess.CalledProcessError as error:
                print(f"{name}, {which} allocator: failed with status {error.returncode}", file=sys.stderr)
                status = 1
                continue
            result["seconds"] = time.perf_counter() - start
            _draw(name, result, folder / f"{'quick-' * args.quick}{name}.png")
            results[f"{name}, {which}"] = result
            print(_markdown(result), flush=True)
            path.write_text(json.dumps(results, indent=1) + "\n")
            path.with_suffix(".md").write_text(_document(args.machine, results))
    print(f"written to {path} and {path.with_suffix('.md')}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"which ones, all if none: {_names()}")
    parser.add_argument("--quick", action="store_true", help="under 2 minutes: few rows, no torch.compile")
    parser.add_argument("--no-compile", action="store_true", help="leave out the peers that compile")
    parser.add_argument("--allocator", choices=allocator.ALLOCATORS, help="only this one")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--machine", default=environment.machine_name(), help="name of the results' folder")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write there instead")
    return parser


def _names() -> str:
    return ", ".join(suites.suite_names())


def _allocators(args: argparse.Namespace, suite: str) -> Sequence[str]:
    if args.allocator:
        return (args.allocator,)
    return ("default",) if args.quick else suites.allocators_of(suite)


def _in_fresh_process(request: Request) -> dict[str, Any]:
    """Malloc reads its settings when a process starts, and what a suite compiled or left behind ends with it."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "result.json")
        print(f"{request.suite}, {request.allocator} allocator", file=sys.stderr)
        command = [sys.executable, "-m", "benchmarks.worker", json.dumps(asdict(request)), str(output)]
        env = allocator.environment(request.allocator)
        subprocess.run(command, check=True, env=env, cwd=Path(__file__).parents[1])
        result: dict[str, Any] = json.loads(output.read_text())
        return result


def _draw(suite: str, result: dict[str, Any], path: Path) -> None:
    """The suite's picture, if it has one and there is something to draw it with."""
    draw = suites.drawer_of(suite)
    if draw is None or not result["sections"]:
        return
    try:
        draw(result["sections"], path)
        result["picture"] = path.name
    except ImportError as error:
        print(f"no picture of {suite}: {error}", file=sys.stderr)


def _document(machine: str, results: dict[str, Any]) -> str:
    parts = [_markdown(result) for result in results.values()]
    return f"# {machine}\n\nWritten by `python -m benchmarks`; see ../../README.md for how to read it.\n\n" + "\n".join(
        parts
    )


def _markdown(result: dict[str, Any]) -> str:
    facts = result["facts"]
    extra = "".join(f", {name}={value}" for name, value in facts["environment"].items())
    taken_on = (
        f"{facts['processor']}, {facts['threads']} of {facts['cores']} cores; torch {facts['torch']}, "
        f"vtfast {facts['vtfast']} at {facts['commit']}, kernels {facts['instruction set']}; allocator "
        f"{facts['allocator']}{extra}; {facts['date']}, load {facts['load']:.1f} at the start."
    )
    parts = [f"Skipped: {result['skipped']}\n"] if "skipped" in result else []
    parts += [f"![{result['picture']}]({result['picture']})\n"] if "picture" in result else []
    for fields in result["sections"]:
        section = Section(**fields)
        allocator_name = facts["allocator"].split(" ")[0]
        parts.append(f"## {section.title}, {allocator_name} allocator\n\n{section.markdown()}\n\n{taken_on}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
