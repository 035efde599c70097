"""Figures for documents, looked up in the committed results: tables, sentences, and what they were taken on."""

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import log
from pathlib import Path
from statistics import linear_regression
from typing import Protocol

from vtfast.bench.measure import Result
from vtfast.bench.results import JUDGED, Record, Results, Run
from vtfast.bench.subjects.subject import FORWARD
from vtfast.bench.table import as_markdown

_WIDTH = 120


class FigureError(ValueError):
    """A figure cannot be had from the results; the message says which, and why."""


@dataclass(frozen=True)
class Work:
    """Names one record of the committed results.

    Args:
        machine: folder of results.
        file: "ops", "models" or "scaling".
        subject: as in `Record`; likewise shape, dtype, mode, sweep and at.
    """

    machine: str
    file: str
    subject: str
    shape: str
    dtype: str = "float32"
    mode: str = FORWARD
    sweep: str | None = None
    at: float | None = None

    def __str__(self) -> str:
        point = f", {self.sweep} {self.at:g}" if self.sweep and self.at is not None else ""
        return f"{self.subject}, {self.shape}, {self.dtype}, {self.mode}{point} in {self.machine}/{self.file}.json"


class Library:
    """The results of every machine.

    Args:
        folder: holds a folder a machine.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[tuple[str, str], Results] = {}
        self._noted: list[Run] = []

    def find(self, work: Work, allocator: str = "default") -> tuple[Run, Record]:
        """The record, and the run that it belongs to.

        Raises:
            FigureError: there is none, or more than one.
        """
        key = (work.machine, work.file)
        if key not in self._files:
            try:
                self._files[key] = Results.load(self.folder / work.machine / f"{work.file}.json")
            except (OSError, ValueError) as error:
                raise FigureError(f"{work}: {error}") from error
        found = self._files[key].find(
            allocator, subject=work.subject, shape=work.shape, dtype=work.dtype, mode=work.mode, sweep=work.sweep,
            at=work.at, device="cpu",
        )  # fmt: skip
        if len(found) != 1:
            raise FigureError(f"{work}: there must be one record under the {allocator} allocator, found {len(found)}")
        if found[0][0] not in self._noted:
            self._noted.append(found[0][0])
        return found[0]

    @contextmanager
    def noting(self) -> Iterator[list[Run]]:
        """The runs that are looked into from here to the end of the block."""
        before, self._noted = self._noted, []
        try:
            yield self._noted
        finally:
            self._noted = before + [run for run in self._noted if run not in before]


def result_of(work: Work, record: Record, way: str) -> Result:
    """What a way came to.

    Raises:
        FigureError: it was not measured, or its result was found wrong.
    """
    result = record.result(way)
    if result is None or result.agrees is False:
        problem = "was not measured" if result is None else f"DIFFERS from its reference by {max(result.errors):.1e}"
        raise FigureError(f"{work}: {way} {problem}")
    return result


def seconds_of(library: Library, work: Work, way: str) -> float:
    """The median time of a way."""
    result = result_of(work, library.find(work)[1], way)
    timing, note = result.timing, result.note
    if timing is None:
        raise FigureError(f"{work}: {way} has no time{f': {note}' if note else ''}")
    return timing.median


@dataclass(frozen=True)
class Quantity:
    """Something about a record.

    Args:
        of: a number as text, and its unit, which a cell has once if it is the same for all numbers in it.
        bold: whether it stands out.
    """

    of: Callable[[Library, Work], tuple[str, str]]
    bold: bool = False

    def text(self, library: Library, works: Sequence[Work]) -> str:
        """Of one record or of several side by side."""
        numbers = [self.of(library, work) for work in works]
        last = numbers[-1][1]
        same = all(unit == last for _, unit in numbers)
        text = " / ".join(number if same else number + unit for number, unit in numbers) + (last if same else "")
        return f"**{text}**" if self.bold else text


class Figure(Protocol):
    """Something that a document shows."""

    def text(self, library: Library) -> str:
        """As Markdown.

        Raises:
            FigureError: a record is missing, or a result that is shown differs from its reference.
        """
        ...


@dataclass(frozen=True)
class Cell:
    """A quantity of one record, or of several side by side, in a sentence."""

    quantity: Quantity
    works: Sequence[Work]

    def text(self, library: Library) -> str:
        return self.quantity.text(library, self.works)


@dataclass(frozen=True)
class Table:
    """A row a piece of work, or a few side by side.

    Args:
        head: of the first column.
        columns: heads and quantities of the others.
        rows: names and records.
    """

    head: str
    columns: Mapping[str, Quantity]
    rows: Mapping[str, Sequence[Work]]

    def text(self, library: Library) -> str:
        rows = [[self.head, *self.columns]]
        for name, works in self.rows.items():
            rows.append([name, *(quantity.text(library, works) for quantity in self.columns.values())])
        return as_markdown(rows)


@dataclass(frozen=True)
class Sentence:
    """Prose with figures in it.

    Args:
        template: with names in braces.
        values: what they stand for.
    """

    template: str
    values: Mapping[str, Figure]

    def text(self, library: Library) -> str:
        values = {name: value.text(library) for name, value in self.values.items()}
        return textwrap.fill(self.template.format(**values), _WIDTH, break_on_hyphens=False)


@dataclass(frozen=True)
class Taken:
    """What the records of other figures were measured on."""

    figures: Sequence[Figure]

    def text(self, library: Library) -> str:
        with library.noting() as runs:
            for figure in self.figures:
                figure.text(library)
        facts = [run.facts for run in runs]
        machines = _each(f"{f['threads']} of {f['cores']} cores of {f['processor']}" for f in facts)
        software = _each(f"torch {f['torch'].split('+')[0]}, kernels {f['instruction set']}" for f in facts)
        commits = _each(f"{f['commit']} ({f['date'][:10]})" for f in facts)
        memory = _each(f"{f['memory']['commit']} ({f['memory']['date'][:10]})" for f in facts if "memory" in f)
        text = f"On {machines}; {software}; vtfast at {commits}{'; memory at ' if memory else ''}{memory}."
        return textwrap.fill(text, _WIDTH, break_on_hyphens=False)


def _each(texts: Iterator[str]) -> str:
    """All that differ, in order."""
    return ", ".join(dict.fromkeys(texts))


@dataclass(frozen=True)
class Exponent:
    """How time grows along a sweep: the power of the axis, fitted to all of its points."""

    works: Sequence[Work]

    def text(self, library: Library) -> str:
        times = [seconds_of(library, work, JUDGED) for work in self.works]
        slope, _ = linear_regression([log(work.at or 0.0) for work in self.works], [log(time) for time in times])
        first, last = self.works[0], self.works[-1]
        return f"{first.sweep}^{slope:.2f} (from {first.at:g} to {last.at:g})"
