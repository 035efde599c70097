"""`vtfast check`: the compiled kernels of every operation, held against a float64 reference on this machine."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vtfast import _library
from vtfast.cli.errors import UserError, as_user_error
from vtfast.cli.options import positive_int
from vtfast.cli.progress import Progress

__all__ = ["add_command", "check"]

_DTYPES = ("float32", "bfloat16", "float16", "float64")
# How many drawn cases follow the fixed ones of an operation with --exhaustive.
_DRAWN = 60


def add_command(commands: Any) -> None:
    """Adds the command to the sub-parsers of `vtfast`."""
    parser = commands.add_parser(
        "check",
        help="check the results and gradients of every operation on this machine",
        description="Runs the compiled kernels of every operation of vtfast.ops and holds results and gradients"
        " against the reference in float64: an error may be 2 times that of plain PyTorch in the same dtype, of a"
        " gradient 3 times. Looks at bitwise repeatability, layouts and NaN too, and runs torch's opcheck and, in"
        " float64, gradcheck. The exit status is 1 if something is wrong or nothing could be checked, 2 if there are"
        " no compiled kernels.",
    )
    parser.add_argument("--op", nargs="+", metavar="NAME", help="operations of vtfast.ops (default: all)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="whose kernels (default: cpu)")
    parser.add_argument(
        "--dtype",
        nargs="+",
        choices=_DTYPES,
        metavar="DTYPE",
        help=f"among {', '.join(_DTYPES)} (default: all; on cuda all but float64, for which it has no kernels)",
    )
    parser.add_argument(
        "--exhaustive",
        action="store_true",
        help=f"{_DRAWN} more cases of each operation and dtype, drawn from --seed over all settings: minutes",
    )
    parser.add_argument("--case", type=int, metavar="N", help="case N alone, as the table names it")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="what cases are drawn from (default: 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was found to FILE")
    parser.add_argument("--threads", type=positive_int, metavar="N", help="CPU threads (default: torch's own choice)")
    parser.set_defaults(command=check)


def check(args: argparse.Namespace) -> int:
    """Carries out the command and returns the exit status."""
    # These take a while to import, which the other commands should not pay for.
    from vtfast.check import table
    from vtfast.check.cases import SUBJECTS
    from vtfast.check.run import run_case

    ops = _checked_ops(args.op, list(SUBJECTS))
    if args.case is not None and (args.case < 0 or args.exhaustive):
        wrong = "does not go with --exhaustive" if args.exhaustive else f"must be at least 0, got {args.case}"
        raise UserError(f"--case {wrong}")
    device = _device(args)
    dtypes = args.dtype or [name for name in _DTYPES if device.type == "cpu" or name != "float64"]
    plan = []
    for op in ops:
        count = len(SUBJECTS[op].fixed) + (_DRAWN if args.exhaustive else 0)
        cases: Sequence[int] = range(count) if args.case is None else [args.case]
        plan += [(op, name, case, case == cases[0]) for name in dtypes for case in cases]

    outcomes = []
    with Progress(len(plan), "case") as progress:
        for op, name, case, first in plan:
            # opcheck takes a second and the settings hardly matter to it: once an operation and dtype.
            outcome = run_case(op, case, args.seed, getattr(torch, name), device, opcheck=first)
            outcomes.append(outcome)
            if not outcome.passed:
                progress.print(table.failure(outcome))
            progress.advance()
    for reason, count in _reasons(outcomes).items():
        print(f"vtfast: note: {count} cases left out: {reason}", file=sys.stderr)
    rows = table.summarise(outcomes)
    print(table.as_table(rows), table.worst_cases(outcomes), sep="\n\n")
    if args.json is not None:
        with as_user_error(OSError):
            args.json.write_text(json.dumps(table.as_json(outcomes), indent=1) + "\n")
    failed = sum(not outcome.passed for outcome in outcomes)
    checked = sum(outcome.report is not None for outcome in outcomes)
    print(f"\n{failed} of {checked} cases failed" if checked else "\nno case was checked: no kernel takes them")
    return 0 if table.passed(rows) else 1


def _checked_ops(given: Sequence[str] | None, known: Sequence[str]) -> Sequence[str]:
    unknown = [name for name in given or () if name not in known]
    if unknown:
        raise UserError(f"--op must be among {', '.join(known)}, got {', '.join(unknown)}")
    return [name for name in known if given is None or name in given]


def _device(args: argparse.Namespace) -> torch.device:
    """The device, with plain PyTorch on it a fair yardstick."""
    device = torch.device(args.device)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError("--device cuda: torch finds no CUDA device")
        # Full float32, and sums in float32; deterministic mode refuses matrix products without the workspace.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    missing = _library.why_unavailable(device)
    if missing is not None:
        raise UserError(f"there are no compiled kernels to check: {missing}")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    return device


def _reasons(outcomes: Sequence[Any]) -> dict[str, int]:
    """Why cases were left out, and how many."""
    reasons: dict[str, int] = {}
    for outcome in outcomes:
        if outcome.untaken is not None:
            reasons[outcome.untaken] = reasons.get(outcome.untaken, 0) + 1
    return reasons
