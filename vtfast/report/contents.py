"""Puts a report together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from vtfast.report import all_ways, correctness, limits, machines, memory, roofline, scaling, speedups
from vtfast.report.document import Document, Section, Text
from vtfast.report.sources import Machine

__all__ = ["report"]

OfMachine = Callable[[Machine, str], Section]

_SECTIONS: Mapping[str, OfMachine] = {
    "Machine and versions": machines.section,
    "Speed-ups": speedups.section,
    "Roofline": roofline.section,
    "Share of the limiting ceiling": limits.section,
    "Scaling": scaling.section,
    "Memory": memory.section,
    "Correctness": correctness.section,
    "All ways": all_ways.section,
}

_LEAD = (
    "Times are medians of interleaved rounds in one process. Results are compared with a reference in float64: where"
    " one differs, or was not compared, no speed-up is given."
)


def report(
    found: Sequence[Machine],
    title: str = "vtfast: what was measured",
    check: Mapping[str, Any] | None = None,
    further: Sequence[Section] = (),
) -> Document:
    """The document.

    Args:
        found: what was measured, by machine.
        title: of the whole.
        check: what `vtfast check --json` wrote, if it is to be shown.
        further: sections that go before the table of everything.
    """
    sections: list[Section] = []
    for name, of_machine in _SECTIONS.items():
        if of_machine is all_ways.section:
            sections += further
        section = _joined(name, of_machine, found)
        if of_machine is correctness.section and check is not None:
            section = replace(section, sections=[*section.sections, correctness.check_section(check)])
        sections.append(section)
    return Document(title, _LEAD, sections)


def _joined(name: str, of_machine: OfMachine, found: Sequence[Machine]) -> Section:
    """One section of all machines, each below its own heading if there are several."""
    made = [of_machine(machine, f"machine-{number}") for number, machine in enumerate(found, start=1)]
    if not made:
        return Section(name, [Text("The files have no records.")])
    if len(made) == 1:
        return replace(made[0], title=name)
    return Section(name, (), [replace(one, title=machine.name) for one, machine in zip(made, found, strict=True)])
