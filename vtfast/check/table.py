"""The results of many cases as text and as JSON."""

import math
import platform
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

import torch

import vtfast
from vtfast.check.run import Outcome
from vtfast.testing.table import aligned

_HEAD = ("op", "dtype", "cases", "no kernel", "worst error / allowed", "repeatable", "opcheck", "gradcheck", "others")
# What a column of its own does not show.
_OTHERS = ("runs", "fresh memory", "layouts", "nan")


def summarise(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """A row an operation and dtype.

    Returns:
        Dicts with `op`, `dtype`, `cases`, `untaken` (cases that no kernel takes), `worst` (error as a share of what is
        allowed), `failed` (cases), the verdicts `repeatable`, `opcheck`, `gradcheck` and `others` (true, false, or
        None where nothing was looked at) and `passed` (None where no kernel took any case).
    """
    rows = []
    for (op, dtype), group in groupby(outcomes, key=lambda outcome: (outcome.op, outcome.dtype)):
        of_row = list(group)
        taken = [outcome for outcome in of_row if outcome.report is not None]
        row: dict[str, Any] = {
            "op": op,
            "dtype": dtype,
            "cases": len(of_row),
            "untaken": len(of_row) - len(taken),
            "worst": max((outcome.share for outcome in taken), default=None),
            "failed": sum(not outcome.passed for outcome in taken),
        }
        for name in ("repeatable", "opcheck", "gradcheck"):
            row[name] = _verdict(taken, (name,))
        row["others"] = _verdict(taken, _OTHERS)
        row["passed"] = all(outcome.passed for outcome in taken) if taken else None
        rows.append(row)
    return rows


def _verdict(outcomes: Sequence[Outcome], names: Sequence[str]) -> bool | None:
    """Whether all checks of these names passed; None if there are none."""
    checks = [c for outcome in outcomes if outcome.report for c in outcome.report.checks if c.name in names]
    return all(check.passed for check in checks) if checks else None


def as_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of `summarise`, aligned."""
    words = {True: "ok", False: "FAILED", None: "-"}
    lines: list[tuple[str, ...]] = [(*_HEAD, "verdict")]
    for row in rows:
        worst = "-" if row["worst"] is None else f"{row['worst']:.2f}"
        verdicts = (words[row[name]] for name in ("repeatable", "opcheck", "gradcheck", "others"))
        end = "no kernel" if row["passed"] is None else words[row["passed"]]
        lines.append((row["op"], row["dtype"], str(row["cases"]), str(row["untaken"]), worst, *verdicts, end))
    return aligned(lines, right=(2, 3, 4))


def worst_cases(outcomes: Sequence[Outcome]) -> str:
    """The worst case of each operation: a failed one first, then that with the largest error for what is allowed."""
    lines: list[tuple[str, ...]] = [("worst case of", "tensor", "error", "allowed", "seed", "again by")]
    for op, group in groupby(outcomes, key=lambda outcome: outcome.op):
        taken = [outcome for outcome in group if outcome.report is not None]
        if not taken:
            continue
        outcome = max(taken, key=lambda outcome: (not outcome.passed, outcome.share))
        row = outcome.report.worst if outcome.report is not None else None
        cells = ("-", "-", "-") if row is None else (row.name, f"{row.error:.2e}", f"{row.allowed:.2e}")
        lines.append((op, *cells, str(outcome.seed), outcome.command))
    return aligned(lines, right=(2, 3))


def failure(outcome: Outcome) -> str:
    """All that is wrong with a case: settings, tensors, indices, values, and how to see it again."""
    assert outcome.report is not None
    lines = [f"FAILED {outcome.op}, {outcome.dtype}: {outcome.settings}"]
    lines += [f"  {fault}" for fault in outcome.report.faults]
    return "\n".join([*lines, f"  again by: {outcome.command}"])


def as_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Everything, for machines: `format`, `facts` of the machine, `rows` of the table, and every case.

    Numbers that JSON does not know, such as the infinite error of a missing tensor, are strings: "inf".
    """
    build = vtfast.build_info()
    on_gpu = any(outcome.device == "cuda" for outcome in outcomes)
    rows = summarise(outcomes)
    found = {
        "format": 1,
        "facts": {
            "vtfast": vtfast.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "processor": platform.processor() or platform.machine(),
            "instruction_set": build["cpu_instruction_set"],
            "cuda_device": torch.cuda.get_device_name() if on_gpu else None,
            "threads": torch.get_num_threads(),
        },
        "passed": passed(rows),
        "rows": rows,
        "cases": [asdict(outcome) | {"passed": outcome.passed, "command": outcome.command} for outcome in outcomes],
    }
    everything: dict[str, Any] = _in_json(found)
    return everything


def _in_json(value: Any) -> Any:
    """The same with numbers that are not finite as strings."""
    if isinstance(value, dict):
        return {key: _in_json(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_in_json(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def passed(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether something was checked and nothing was wrong."""
    verdicts = [row["passed"] for row in rows if row["passed"] is not None]
    return bool(verdicts) and all(verdicts)
