"""Memory at the peak: along the axes of sweeps, and of single operations and models."""

from collections.abc import Sequence
from functools import partial
from textwrap import fill
from typing import TYPE_CHECKING

from vtfast.bench.measure import Result
from vtfast.bench.results import JUDGED
from vtfast.bench.sweeps import AXES, THREADS
from vtfast.report.curves import draw, panels_along
from vtfast.report.document import Part, Picture, Section, Text
from vtfast.report.plotting import figure, legend, look_of, memory_axis
from vtfast.report.scaling import AXIS_LABELS
from vtfast.report.sources import Machine, Measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["section"]

_WHAT = "Memory at the peak beyond weights and inputs, results included"


def section(machine: Machine, prefix: str) -> Section:
    """A plot an axis, and bars of what was measured once."""
    parts: list[Part] = []
    for axis in (axis for axis in AXES if axis != THREADS):
        panels = panels_along(machine, axis, _peak)
        if panels:
            drawn = partial(draw, panels, AXIS_LABELS[axis], "memory at the peak", memory_axis)
            title = f"{_WHAT}, against {axis}, on {machine.name}"
            parts.append(
                Picture(f"{prefix}-memory-{axis}", title, f"{_WHAT}, against {axis}; both axes are logarithmic.", drawn)
            )
    bars = [measured for measured in machine.single() if _peaks(measured)]
    if bars:
        title = f"{_WHAT}, of single runs on {machine.name}"
        drawn = partial(_draw, bars, len({run.allocator for run, _ in bars}) > 1)
        parts.append(Picture(f"{prefix}-memory", title, f"{_WHAT}. Shorter is better.", drawn))
    return Section("", parts or [Text("Memory at the peak was not measured (vtfast bench --memory).")])


def _peak(result: Result) -> float | None:
    return result.peak_bytes


def _peaks(measured: Measured) -> dict[str, int]:
    """By way, vtfast's first."""
    right = [r for r in measured.record.results if r.peak_bytes is not None and r.agrees is not False]
    return {r.way: r.peak_bytes or 0 for r in sorted(right, key=lambda r: r.way != JUDGED)}


def _draw(measured: Sequence[Measured], name_allocator: bool) -> "Figure":
    from matplotlib.patches import Patch

    ways = list(dict.fromkeys(way for each in measured for way in _peaks(each)))
    labels = [_label(each, name_allocator) for each in measured]
    heights = [
        max(len(_peaks(each)), 0.9 * (label.count("\n") + 1)) for each, label in zip(measured, labels, strict=True)
    ]
    drawn, panels = figure(1, 1, 0.9 + 0.17 * sum(heights) + 0.1 * len(measured))
    panel, middles, top = panels[0, 0], [], 0.0
    for each, height in zip(measured, heights, strict=True):
        peaks = _peaks(each)
        first = top + (height - len(peaks)) / 2
        for number, (way, peak) in enumerate(peaks.items()):
            place = first + number
            panel.barh(place, peak / 2**20, 0.85, **look_of(way, ways).bar())
            panel.annotate(f"{peak / 2**20:,.0f}", (peak / 2**20, place), (3, 0), textcoords="offset points",
                           va="center", fontsize=6.5)  # fmt: skip
        middles.append(top + (height - 1) / 2)
        top += height + 0.7
    panel.set_yticks(middles, labels)
    panel.tick_params(axis="y", length=0)
    panel.set_ylim(top - 1.0, -0.8)
    panel.set_xlabel("MiB")
    panel.grid(True, axis="x")
    panel.margins(x=0.1)
    legend(drawn, handles=[Patch(label=way, **look_of(way, ways).bar()) for way in ways])
    return drawn


def _label(measured: Measured, name_allocator: bool) -> str:
    run, record = measured
    size = record.name.replace(",", ", ").replace(",  ", ", ")
    parts = [
        record.subject,
        size,
        record.dtype,
        record.mode,
        *([f"allocator {run.allocator}"] if name_allocator else []),
    ]
    return fill(", ".join(parts), 44)
