"""Every number: the time of every way of every record."""

from vtfast.bench.table import by_table, table
from vtfast.report.document import Part, Section, Table, Text
from vtfast.report.sources import Machine

__all__ = ["section"]


def section(machine: Machine, prefix: str) -> Section:
    """A table a run, operation or model, mode and axis."""
    parts: list[Part] = []
    for run in machine.results.runs:
        for (subject, mode, sweep), records in by_table(run.records).items():
            threads = sorted({record.threads for record in records})
            on = f"{' and '.join(map(str, threads))} thread{'s' * (threads != [1])}, allocator {run.allocator}"
            against = f", against {sweep}" if sweep else ""
            parts.append(Table(f"{subject}, {mode}{against}: {on}", table(records, run.ceilings)))
    return Section("", parts or [Text("There are no records.")])
