"""Speed-ups: bars of operations and models over eager and over the best peer, and what got none."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import isnan
from statistics import geometric_mean
from textwrap import fill
from typing import TYPE_CHECKING, Any

from vtfast.bench.measure import Result
from vtfast.bench.results import JUDGED, Record
from vtfast.bench.subjects.subject import MODES
from vtfast.bench.table import ratio
from vtfast.report.document import Part, Picture, Section, Table, Text
from vtfast.report.plotting import COLOURS, figure, legend
from vtfast.report.sources import Machine, Measured, is_yardstick

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["refusals", "section"]

EAGER, BEST = OVER = ("over eager", "over the best peer")


@dataclass
class Cell:
    """The speed-ups of one bar group in one mode.

    Args:
        ratios: by what they are over and the allocator; several are sizes of one operation.
        peers: the best peers of the first allocator.
        refused: whether a record got no number.
    """

    ratios: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    peers: set[str] = field(default_factory=set)
    refused: bool = False


Groups = dict[tuple[str, str], dict[str, Cell]]  # by subject and label, by mode


def section(machine: Machine, prefix: str) -> Section:
    """All bars of a machine, and the list of what got none.

    Args:
        machine: what was measured.
        prefix: of names of plots.
    """
    records = machine.single()
    allocators = machine.allocators
    parts: list[Part] = []
    for kind, name in (("op", "operations"), ("model", "models")):
        groups = _groups((m for m in records if m.record.kind == kind), allocators, lambda r: (r.subject, r.dtype))
        title = f"Speed-up of {name} on {machine.name}"
        parts += _bars(f"{prefix}-speedup-{kind}s", title, groups, allocators, _SUMMARY)
    if not parts:
        parts.append(Text("There are no records of vtfast and a peer."))
    parts += _refused(records, allocators)
    return Section("", parts, _by_size(machine, records, prefix))


_SUMMARY = (
    "The bar is the geometric mean over all sizes, the thin line goes from the slowest size to the fastest. Right of"
    " 1 vtfast is faster, left of it slower. Behind a bar over the best peer stands which that is."
)
_EACH = "Right of 1 vtfast is faster, left of it slower. Behind a bar over the best peer stands which that is."


def _by_size(machine: Machine, records: Sequence[Measured], prefix: str) -> list[Section]:
    """A plot each of the operations and models that have several sizes."""
    sections = []
    for number, subject in enumerate(dict.fromkeys(measured.record.subject for measured in records)):
        own = [measured for measured in records if measured.record.subject == subject]
        if len({(m.record.shape, m.record.threads) for m in own}) < 2:
            continue
        threads = {m.record.threads for m in own}
        groups = _groups(own, machine.allocators, partial(_size, show_threads=len(threads) > 1))
        title = f"Speed-up of {subject} by size on {machine.name}"
        parts = _bars(f"{prefix}-speedup-sizes-{number}", title, groups, machine.allocators, _EACH)
        sections += [Section(f"{subject}, by size", parts)] if parts else []
    return sections


def _size(record: Record, show_threads: bool) -> tuple[str, str]:
    name = f"{record.name}, {record.threads} threads" if show_threads else record.name
    return record.dtype, name


def _groups(
    measured: Iterable[Measured], allocators: Sequence[str], label: Callable[[Record], tuple[str, str]]
) -> Groups:
    groups: Groups = {}
    for run, record in measured:
        if not _is_contest(record):
            continue
        cell = groups.setdefault(label(record), {}).setdefault(record.mode, Cell())
        best = record.best_peer()
        over_best = None if best is None else record.speedup(best.way)
        for over, value in ((EAGER, record.speedup("eager")), (BEST, over_best)):
            if value is not None:
                cell.ratios.setdefault((over, run.allocator), []).append(value)
        if best is None or over_best is None:
            cell.refused = True
        elif run.allocator == allocators[0]:
            cell.peers.add(best.way)
    subjects = list(dict.fromkeys(first for first, _ in groups))
    return dict(sorted(groups.items(), key=lambda item: subjects.index(item[0][0])))


def _is_contest(record: Record) -> bool:
    """Whether there is anything that a speed-up could be of."""
    judged = record.judged
    peers = [r for r in record.results if not (r.timing is None or is_yardstick(r) or r.way.startswith(JUDGED))]
    return judged is not None and judged.timing is not None and bool(peers)


def _bars(name: str, title: str, groups: Groups, allocators: Sequence[str], caption: str) -> list[Part]:
    if not groups:
        return []
    modes = [mode for mode in MODES if any(mode in cells for cells in groups.values())]
    drawn = {name for cells in groups.values() for cell in cells.values() for _, name in cell.ratios}
    allocators = [name for name in allocators if name == allocators[0] or name in drawn]
    said = _said(groups, modes, allocators)
    if len(allocators) > 1:
        caption += f" Bars: allocator {allocators[0]}; diamonds: {', '.join(allocators[1:])}."
    if any(cell.refused and cell.ratios for cells in groups.values() for cell in cells.values()):
        caption += " *: some of it was refused."
    return [Picture(name, f"{title}. {said}", caption, lambda: _draw(groups, modes, allocators))]


def _said(groups: Groups, modes: Sequence[str], allocators: Sequence[str]) -> str:
    """The ends of the bars in words."""
    found = []
    for mode in modes:
        values = [
            geometric_mean(values)
            for cells in groups.values()
            for (over, name), values in cells.get(mode, Cell()).ratios.items()
            if over == BEST and name == allocators[0]
        ]
        if values:
            found.append(f"{mode}: {ratio(min(values))} to {ratio(max(values))} times the best peer's speed")
    return "; ".join(found)


def _draw(groups: Groups, modes: Sequence[str], allocators: Sequence[str]) -> "Figure":
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    drawn, panels = figure(1, len(modes), 0.95 + 0.36 * len(groups), sharey=True)
    for panel, mode in zip(panels[0], modes, strict=True):
        _axis(panel, [value for cells in groups.values() for cell in cells.values() for value in _values(cell)])
        for row, cells in enumerate(groups.values()):
            if mode in cells:
                _draw_cell(panel, row, cells[mode], allocators)
        panel.set_title(mode)
        panel.set_xlabel("times as fast")
        panel.set_ylim(len(groups) - 0.4, -0.6)
    names = list(groups)
    # Sizes such as 8 x 56 x 56 stay on one line.
    labels = [fill(f"{first}, {second}".replace(" x ", "\u00a0x\u00a0"), 34) for first, second in names]
    panels[0, 0].set_yticks(range(len(names)), labels)
    for panel in panels[0]:
        panel.tick_params(axis="y", length=0)
        for row in (row for row in range(1, len(names)) if names[row][0] != names[row - 1][0]):
            panel.axhline(row - 0.5, color="#bbbbbb", linewidth=0.6)
    keys: list[Any] = [Patch(label=over, **_bar(over)) for over in OVER if _has(groups, over)]
    if any(geometric_mean(v) < 1 for cells in groups.values() for c in cells.values() for v in c.ratios.values()):
        keys.append(Patch(label="slower", **_bar(BEST, slower=True)))
    keys += [Line2D([], [], label=f"allocator {name}", **_DIAMOND, linestyle="none") for name in allocators[1:]]
    legend(drawn, handles=keys)
    return drawn


_DIAMOND: dict[str, Any] = {
    "marker": "D",
    "markersize": 3.6,
    "markerfacecolor": "white",
    "color": "black",
    "markeredgewidth": 0.9,
}


def _has(groups: Groups, over: str) -> bool:
    return any(name == over for cells in groups.values() for cell in cells.values() for name, _ in cell.ratios)


def _bar(over: str, slower: bool = False) -> dict[str, Any]:
    hatch = "" if over == BEST else "////"
    return {
        "facecolor": COLOURS[1 if slower else 0 if over == BEST else 5],
        "hatch": hatch,
        "edgecolor": "white",
        "linewidth": 0,
    }


def _values(cell: Cell) -> Iterable[float]:
    return (value for values in cell.ratios.values() for value in values)


def _axis(panel: "Axes", values: Sequence[float]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = min([*values, 1.0]), max([*values, 1.5])
    panel.set_xscale("log")
    # Names of peers stand behind the bars.
    panel.set_xlim(low / 1.15, high * (high / low) ** 0.4 * 1.3)
    steps = (1, 2, 5) if high / low > 6 else (1, 1.5, 2, 3, 4, 5, 7)
    ticks = [step * scale for scale in (0.001, 0.01, 0.1, 1, 10, 100, 1000) for step in steps]
    panel.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if low / 1.15 <= tick <= high * 1.3]))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.grid(True, axis="x")
    panel.axvline(1, color="black", linewidth=0.9)


def _draw_cell(panel: "Axes", row: int, cell: Cell, allocators: Sequence[str]) -> None:
    if not cell.ratios:
        panel.text(1, row, " refused: no number", va="center", fontsize=7, style="italic")
    for number, over in enumerate(OVER):
        height = row + (number - 0.5) * 0.38
        end = 1.0
        values = cell.ratios.get((over, allocators[0]), [])
        if values:
            mean, end = geometric_mean(values), max(*values, 1.0)
            panel.barh(height, mean - 1, 0.34, left=1, **_bar(over, slower=mean < 1))
            if len(values) > 1:
                panel.plot([min(values), max(values)], [height, height], color="black", linewidth=0.9)
        for name in allocators[1:]:
            others = cell.ratios.get((over, name), [])
            if others:
                panel.plot(geometric_mean(others), height, **_DIAMOND)
                end = max(end, geometric_mean(others) * 1.04)
        if values:
            peer = f" {next(iter(cell.peers))}" if over == BEST and len(cell.peers) == 1 else ""
            note = f"{ratio(geometric_mean(values))}{peer}{' *' if cell.refused and over == BEST else ''}"
            panel.annotate(note, (end, height), (3, 0), textcoords="offset points", va="center", fontsize=6.5)


def _refused(records: Sequence[Measured], allocators: Sequence[str]) -> list[Part]:
    rows = [
        [record.title, *([run.allocator] if len(allocators) > 1 else []), "; ".join(refusals(record))]
        for run, record in records
        if refusals(record)
    ]
    if not rows:
        return [Text("No result differs from its reference, so no speed-up was refused.")]
    head = ["record", *(["allocator"] if len(allocators) > 1 else []), "why"]
    return [
        Table("Refused: what got no speed-up, or none over a peer whose result is wrong", [head, *rows], words=True)
    ]


def refusals(record: Record) -> list[str]:
    """Why a record, or a peer in it, gets no speed-up; empty if all do that were measured."""
    if not _is_contest(record):
        return []
    reasons = [_difference(result) for result in record.results if result.agrees is False]
    if record.judged is not None and record.judged.agrees is None:
        reasons.append(f"the result of {JUDGED} was not compared")
    if record.best_peer() is None:
        reasons.append("no peer has a result that is known to be right")
    return reasons


def _difference(result: Result) -> str:
    worst = max(result.errors, default=float("nan"), key=lambda error: float("inf") if isnan(error) else error)
    if isnan(worst):
        return f"the result of {result.way} has NaN, infinities or another shape"
    return f"the result of {result.way} differs from the reference by {worst:.1e} of its largest value"
