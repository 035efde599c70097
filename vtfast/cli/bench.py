"""`vtfast bench`: operations and models against what PyTorch users have, on this machine."""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from vtfast.bench import allocator as allocators
from vtfast.bench.compare import Change, compare
from vtfast.bench.request import Request
from vtfast.bench.results import Record, Results, Run
from vtfast.bench.runner import Failure, measure_all
from vtfast.bench.selection import Selection
from vtfast.bench.subjects import Subject, find_subjects, op_names
from vtfast.bench.subjects.models import DEFAULT, model_names
from vtfast.bench.subjects.subject import AUTOCAST, MODES
from vtfast.bench.sweeps import AXES, sweep_requests
from vtfast.bench.table import as_text, by_table, cell, notes, ratio, table
from vtfast.cli.errors import UserError, as_user_error
from vtfast.cli.options import positive_int
from vtfast.cli.progress import Progress

__all__ = ["add_command", "bench"]

OPS, MODELS, SCALING = "ops", "models", "scaling"

_DTYPES = ("float32", "bfloat16", "float16", "autocast")
_MODES = {"forward": MODES[:1], "backward": MODES[1:], "both": MODES}


def add_command(commands: Any) -> None:
    """Adds the command to the sub-parsers of `vtfast`."""
    parser = commands.add_parser(
        "bench",
        help="measure operations and models against PyTorch's",
        description="Measures vtfast against every other way that is installed of doing the same: forward, and forward"
        " + backward, in turns in one process, medians with half the distance of their quartiles, after warming up."
        " Every result is compared with a reference in float64; one that differs is marked and gets no speed-up."
        " The exit status is 1 if a case failed, a result of vtfast differs, or --compare finds something slower.",
    )
    parser.add_argument(
        "group", nargs="*", choices=[OPS, MODELS, SCALING, []], metavar="GROUP",
        help=f"{OPS}, {MODELS}, or {SCALING}: against {', '.join(AXES)} (default: {OPS} and {MODELS})",
    )  # fmt: skip
    what = parser.add_argument_group("what")
    what.add_argument("--op", nargs="+", metavar="NAME", help=f"operations, by shell patterns: {', '.join(op_names())}")
    what.add_argument(
        "--model", nargs="+", metavar="NAME", help=f"models, by shell patterns (default: {_list(DEFAULT)})"
    )
    what.add_argument(
        "--shape", action="append", default=[], metavar="SIZE",
        help="a size of your own, once or several times: grid=8x56x56,num_heads=3,window=8x7x7,shift=0x3x3 for one"
        " operation, clip=2x3x16x224x224 for models; fields that are left out are those of the first named size",
    )  # fmt: skip
    what.add_argument("--dtype", nargs="+", choices=_DTYPES, default=[], help="default: float32 and bfloat16")
    what.add_argument("--mode", choices=_MODES, help="forward, or forward + backward (default: both)")
    what.add_argument("--peers", nargs="*", metavar="NAME", help="only these: eager, compile, SDPA... (default: all)")
    what.add_argument("--no-compile", action="store_true", help="leave out the peers that compile")
    what.add_argument("--sweep", nargs="+", choices=AXES, help=f"axes of {SCALING} (default: all)")
    how = parser.add_argument_group("how")
    how.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    how.add_argument("--threads", type=positive_int, metavar="N", help="CPU threads (default: torch's own choice)")
    how.add_argument(
        "--memory",
        action="store_true",
        help="memory at the peak too, each way in a process of its own; not of those that compile",
    )
    how.add_argument("--quick", action="store_true", help="few sizes and rounds, no peer that compiles")
    how.add_argument(
        "--allocator", choices=(*allocators.ALLOCATORS, "both"), default="default",
        help="as users have it, or a malloc that keeps freed pages (default: default)",
    )  # fmt: skip
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write results there, after every case; other cases in FILE stay"
    )
    parser.add_argument("--compare", type=Path, metavar="OLD", help="say what is slower than in this file of results")
    parser.set_defaults(command=bench)


def bench(args: argparse.Namespace) -> int:
    """Carries out the command and returns the exit status."""
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no CUDA device")
    with as_user_error(ValueError, OSError):
        requests = list(_requests(args))
        old = Results.load(args.compare) if args.compare else None
        kept = Results.load(args.json) if args.json and args.json.exists() else Results()
    if not requests:
        raise UserError("nothing to measure is left of what was asked for")
    measured, failed = Results(), 0
    which = allocators.ALLOCATORS if args.allocator == "both" else (args.allocator,)
    with Progress(len(requests) * len(which), "case") as progress:
        for name in which:
            run = Run({})
            measured.runs.append(run)
            for answer in measure_all(requests, name, run):
                progress.advance()
                progress.print(_line(answer), error=True)
                if isinstance(answer, Record) and args.json:
                    kept.add(run)
                    kept.save(args.json)
                failed += isinstance(answer, Failure) and not answer.skipped
    _print_tables(measured)
    differing = [record for run in measured.runs for record in run.records if _differs(record)]
    for record in differing:
        print(f"vtfast: error: the result of vtfast differs from the reference: {record.title}", file=sys.stderr)
    if old is not None:
        _note_other_machine(measured, old)
    worse = old is not None and _print_changes(*compare(measured, old))
    return 1 if failed or differing or worse else 0


def _requests(args: argparse.Namespace) -> Iterator[Request]:
    selection = Selection(
        shapes=args.shape,
        dtypes=[AUTOCAST if dtype == "autocast" else dtype for dtype in args.dtype],
        modes=_MODES.get(args.mode, ()),
        peers=args.peers,
        compile=not args.no_compile,
        device=args.device,
        threads=args.threads or torch.get_num_threads(),
        memory=args.memory,
        quick=args.quick,
    )
    if SCALING in args.group:
        yield from sweep_requests(selection, args.sweep or AXES, args.op or [], args.model or [])
        if set(args.group) == {SCALING}:
            return
    subjects = _subjects(args)
    if args.shape and len(subjects) > 1 and any(subject.kind == "op" for subject in subjects):
        raise ValueError(f"--shape is a size of one operation: name it by --op, out of {', '.join(op_names())}")
    for subject in subjects:
        if AUTOCAST in selection.dtypes and subject.kind == "op":
            raise ValueError("--dtype autocast is for models; operations take float32, bfloat16 or float16")
        yield from selection.requests(subject)


def _subjects(args: argparse.Namespace) -> list[Subject]:
    """By group and name; naming operations alone leaves out the models, and the other way round."""
    groups = set(args.group) - {SCALING} or {OPS, MODELS}
    if not args.group and bool(args.op) != bool(args.model):
        groups = {OPS} if args.op else {MODELS}
    found = find_subjects(args.op or ["*"], op_names(), "--op") if OPS in groups else []
    if MODELS in groups:
        found += find_subjects(args.model or DEFAULT, model_names(), "--model")
    return found


def _line(answer: Record | Failure) -> str:
    """What is printed when a case is done."""
    if isinstance(answer, Failure):
        request = answer.request
        what = f"{request.subject}, {request.name}, {request.dtype}, {request.mode}"
        return f"{what}: {'skipped: ' if answer.skipped else 'FAILED: '}{answer.reason}"
    best = answer.best_peer()
    text = f"{answer.title}: {cell(answer.judged)}"
    if best is None or answer.speedup(best.way) is None:
        return text
    return f"{text}, {ratio(answer.speedup(best.way))} x {best.way}"


def _print_tables(results: Results) -> None:
    for run in results.runs:
        if not run.records:
            continue
        facts = run.facts
        print(
            f"\n{facts.get('device', facts['processor'])}, {facts['threads']} threads; torch {facts['torch']}, vtfast"
            f" {facts['vtfast']}, kernels {facts['instruction set']}; allocator {facts['allocator']}"
        )
        print("at most: " + ", ".join(f"{name} {rate / 1e9:.4g} G/s" for name, rate in run.ceilings.items()))
        for (subject, mode, sweep), records in by_table(run.records).items():
            print(f"\n{subject}, {mode}{f', against {sweep}' if sweep else ''}")
            print("\n".join([as_text(table(records, run.ceilings)), *notes(records)]))


def _differs(record: Record) -> bool:
    return record.judged is not None and record.judged.agrees is False


def _note_other_machine(new: Results, old: Results) -> None:
    for fact in ("processor", "device", "torch", "threads"):
        before, now = ({run.facts.get(fact) for run in results.runs if run.facts} for results in (old, new))
        if not now <= before:
            print(f"vtfast: note: the earlier results have {fact} {_list(before)}, these {_list(now)}", file=sys.stderr)


def _print_changes(changes: Sequence[Change], unknown: Sequence[Record]) -> bool:
    """Whether anything is worse."""
    print(f"\ncompared with the earlier results: {len(changes)} cases, {len(unknown)} that they do not have")
    for change in changes:
        if change.is_worse or change.is_faster:
            memory = "" if change.memory is None else f", memory {change.memory:.2f} x"
            verdict = "WRONG" if change.wrong else "slower" if change.is_slower else "faster"
            verdict = "more memory" if change.needs_more and verdict == "faster" else verdict
            print(
                f"  {verdict:<12} {change.record.title}: {change.ratio:.2f} x the time (noise {change.noise:.0%}, the"
                f" machine itself {change.drift:.2f} x){memory}"
            )
    worse = sum(change.is_worse for change in changes)
    print(f"  {worse} worse, {sum(change.is_faster for change in changes)} faster beyond the noise")
    return worse > 0


def _list(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
