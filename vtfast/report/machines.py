"""What figures were taken on: processor, software, settings, and what the machine can do at most."""

from collections.abc import Mapping, Sequence
from typing import Any

from vtfast.bench.results import Run
from vtfast.report.document import Part, Section, Table, Text
from vtfast.report.sources import Machine

__all__ = ["section"]


def section(machine: Machine, prefix: str) -> Section:
    """What all runs have in common, what they do not, and the ceilings."""
    runs = machine.results.runs
    facts = [_facts(run) for run in runs]
    names = list(dict.fromkeys(name for each in facts for name in each))
    common = [name for name in names if len({each.get(name) for each in facts}) == 1]
    parts: list[Part] = []
    if common:
        rows = [["", "value"], *([name, facts[0][name]] for name in common)]
        parts.append(Table("Of all runs" if len(runs) > 1 else "Of the run", rows, words=True))
    if len(runs) > 1:
        differing = [name for name in names if name not in common]
        rows = [["what was measured", *differing]]
        rows += [
            [_subjects(run), *(each.get(name, "-") for name in differing)]
            for run, each in zip(runs, facts, strict=True)
        ]
        parts.append(Table("Of each run", rows, words=True))
    return Section("", [*parts, _ceilings(runs)])


def _facts(run: Run) -> dict[str, str]:
    """In words, with the backends that SDPA chose."""
    facts = {name: _said(value) for name, value in run.facts.items()}
    chosen = sorted({result.sdpa for record in run.records for result in record.results if result.sdpa})
    return {**facts, "SDPA's backends": ", ".join(chosen) if chosen else "not noted"}


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={setting}" for name, setting in value.items()) or "nothing set"
    if isinstance(value, str):
        return value.replace("T", " ").replace("+00:00", " UTC") if value.endswith("+00:00") else value
    if isinstance(value, float):
        return f"{value:.2f}"
    return "unknown" if value is None else str(value)


def _subjects(run: Run) -> str:
    return ", ".join(dict.fromkeys(record.subject for record in run.records))


def _ceilings(runs: Sequence[Run]) -> Part:
    """A column a ceiling; runs with the same ceilings once."""
    names = list(dict.fromkeys(name for run in runs for name in run.ceilings))
    if not names:
        return Text("No ceilings were measured.")
    rows = [["measured", *(f"{name}, {_UNITS.get(name, 'GFLOP/s')}" for name in names)]]
    seen = []
    for run in runs:
        if run.ceilings and run.ceilings not in seen:
            seen.append(run.ceilings)
            rates = [f"{run.ceilings[name] / 1e9:,.4g}" if name in run.ceilings else "-" for name in names]
            rows.append([f"{_said(run.facts.get('date', 'undated'))}, allocator {run.allocator}", *rates])
    return Table("Ceilings: what the machine can do at most", rows)


_UNITS = {"copy": "GB/s read and written", "exp": "10⁹/s"}
