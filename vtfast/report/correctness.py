"""What results are worth: their errors against the reference, and what `vtfast check` found."""

import json
from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

from vtfast.bench.measure import Result
from vtfast.report.document import Part, Section, Table, Text
from vtfast.report.sources import Machine, Measured

__all__ = ["check_section", "load_check", "section"]

_FORMAT = 1
_VERDICTS = ("repeatable", "opcheck", "gradcheck", "others")
_WORDS = {True: "ok", False: "FAILED", None: "-"}


def section(machine: Machine, prefix: str) -> Section:
    """The largest errors of the benchmark's results by operation or model, dtype and mode."""
    groups: dict[tuple[str, str, str], list[Measured]] = {}
    for measured in machine.everything():
        record = measured.record
        groups.setdefault((record.subject, record.dtype, record.mode), []).append(measured)
    rows = [row for (subject, dtype, mode), own in groups.items() if (row := _row(subject, dtype, mode, own))]
    if not rows:
        return Section("", [Text("No result was compared with a reference.")])
    head = ["", "dtype", "mode", "sizes", "error of vtfast", "of eager", "of the best peers", "vtfast agrees"]
    caption = "Largest difference to the reference in float64, as a share of the reference's largest value"
    return Section("", [Table(caption, [head, *rows])])


def _row(subject: str, dtype: str, mode: str, measured: Sequence[Measured]) -> list[str] | None:
    ours = [record.judged for _, record in measured if record.judged is not None]
    compared = [result for result in ours if result.agrees is not None]
    if not compared:
        return None
    eager = [result for _, record in measured if (result := record.result("eager")) is not None]
    best = [result for _, record in measured if (result := record.best_peer()) is not None]
    wrong = sum(not result.agrees for result in compared)
    verdict = f"{wrong} of {len(compared)} DIFFER" if wrong else "all"
    return [
        subject,
        dtype,
        mode,
        str(len(compared)),
        *(_worst(results) for results in (compared, eager, best)),
        verdict,
    ]


def _worst(results: Sequence[Result]) -> str:
    errors = [error for result in results for error in result.errors]
    if any(isnan(error) for error in errors):
        return "NaN"
    return f"{max(errors):.1e}" if errors else "-"


def load_check(path: Path) -> dict[str, Any]:
    """Reads what `vtfast check --json` wrote.

    Raises:
        ValueError: the file is something else.
        OSError: it cannot be read.
    """
    try:
        found = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no file of vtfast check: {error}") from error
    wanted = {"format", "facts", "passed", "rows", "cases"}
    if not isinstance(found, dict) or not wanted <= found.keys() or found["format"] != _FORMAT:
        keys = ", ".join(sorted(found)) if isinstance(found, dict) else type(found).__name__
        raise ValueError(f"{path} is no file of vtfast check of format {_FORMAT}, found {keys}")
    return found


def check_section(found: Mapping[str, Any]) -> Section:
    """What `vtfast check` found: a row an operation and dtype, and the cases that failed."""
    facts = {name: value for name, value in found["facts"].items() if value is not None}
    head = ["", "dtype", "cases", "no kernel", "worst error / allowed", *_VERDICTS, "verdict"]
    rows = [_check_row(row) for row in found["rows"]]
    on = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items())
    parts: list[Part] = [Text(f"Kernels against the reference in float64, checked on: {on}.")]
    parts.append(
        Table(
            "What vtfast check found: an error is right up to 1.00 of what is allowed; - was not looked at",
            [head, *rows],
        )
    )
    failed = [
        [case["op"], case["dtype"], case["settings"], case["command"]] for case in found["cases"] if _failed(case)
    ]
    if failed:
        parts.append(Table("Cases that failed", [["", "dtype", "settings", "again by"], *failed], words=True))
    return Section("Gradient check", parts)


def _failed(case: Mapping[str, Any]) -> bool:
    return case["passed"] is False


def _check_row(row: Mapping[str, Any]) -> list[str]:
    worst = row["worst"]
    cells = [row["op"], row["dtype"], str(row["cases"]), str(row["untaken"])]
    cells.append("-" if worst is None else f"{float(worst):.2f}")
    cells += [_WORDS[row[name]] for name in _VERDICTS]
    verdict = {True: "ok", False: f"{row['failed']} FAILED", None: "no kernel"}
    return [*cells, verdict[row["passed"]]]
