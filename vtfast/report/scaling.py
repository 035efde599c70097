"""How time grows with frames, size and batch, and what more threads bring."""

from collections.abc import Sequence
from functools import partial

from vtfast.bench.measure import Result
from vtfast.bench.sweeps import AXES, BATCH, FRAMES, SIZE, THREADS
from vtfast.report.curves import Curve, Panel, draw, exponent, panels_along
from vtfast.report.document import Part, Picture, Section, Table, Text
from vtfast.report.plotting import time_axis
from vtfast.report.sources import Machine

__all__ = ["AXIS_LABELS", "section"]

AXIS_LABELS = {FRAMES: "frames of a clip", SIZE: "height and width, pixels", BATCH: "clips", THREADS: "threads"}


def section(machine: Machine, prefix: str) -> Section:
    """A plot an axis that was measured, with a table of exponents."""
    sections, missing = [], []
    for axis in AXES:
        panels = panels_along(machine, axis, _seconds)
        if panels:
            sections.append(Section(f"Against {axis}", _parts(machine, axis, panels, prefix)))
        else:
            missing.append(axis)
    parts = [Text(f"Nothing was measured against {', '.join(missing)}.")] if missing else []
    return Section("", parts, sections)


def _seconds(result: Result) -> float | None:
    return None if result.timing is None else result.timing.median


def _parts(machine: Machine, axis: str, panels: Sequence[Panel], prefix: str) -> list[Part]:
    title = f"Time against {axis} on {machine.name}: {_said(panels)}"
    caption = "Medians; both axes are logarithmic, so a power is a straight line, and its exponent the slope."
    if any(panel.unchecked for panel in panels):
        caption += " Some of these results were timed without being compared with a reference."
    picture = Picture(
        f"{prefix}-time-{axis}", title, caption, partial(draw, panels, AXIS_LABELS[axis], "time", time_axis)
    )
    return [picture, _table(axis, panels)]


def _said(panels: Sequence[Panel]) -> str:
    """The exponents in words."""
    return "; ".join(
        f"{panel.title}: {', '.join(f'{curve.way} exponent {exponent(curve.points):.2f}' for curve in panel.curves)}"
        for panel in panels
    )


def _table(axis: str, panels: Sequence[Panel]) -> Table:
    head = ["", "way", f"{axis} from", "to", "exponent"]
    head += ["times as fast", "efficiency"] if axis == THREADS else []
    rows = [head]
    for panel in panels:
        for curve in panel.curves:
            first, last = curve.points[0][0], curve.points[-1][0]
            row = [panel.title, curve.way, f"{first:g}", f"{last:g}", f"{exponent(curve.points):.2f}"]
            rows.append(row + (_efficiency(curve) if axis == THREADS else []))
    what = "Efficiency: times as fast, over times as many threads" if axis == THREADS else "Exponents"
    return Table(f"{what}, of time against {axis}", rows)


def _efficiency(curve: Curve) -> list[str]:
    (few, slow), (many, fast) = curve.points[0], curve.points[-1]
    return [f"{slow / fast:.2f}", f"{slow / fast / (many / few):.0%}"]
