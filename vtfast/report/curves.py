"""Time and memory against one axis: the curves of a sweep, and the powers that they follow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import log
from statistics import linear_regression
from textwrap import fill
from typing import TYPE_CHECKING

from vtfast.bench.measure import Result
from vtfast.bench.results import JUDGED, Record
from vtfast.bench.sweeps import THREADS
from vtfast.report.plotting import figure, look_of
from vtfast.report.sources import Machine, is_yardstick

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Curve", "Panel", "draw", "exponent", "panels_along"]

Quantity = Callable[[Result], float | None]

# Sizes of which one number is what a sweep changes.
_VARIED = ("grid", "clip", "batch", "volume")
_COLUMNS = 2

_Work = tuple[str, ...]


@dataclass(frozen=True)
class Curve:
    """One way.

    Args:
        way: its name.
        points: where on the axis, and the quantity there, in order.
    """

    way: str
    points: Sequence[tuple[float, float]]


@dataclass
class Panel:
    """All ways of one piece of work along an axis.

    Args:
        title: which work.
        curves: of the ways with a right result, vtfast's last.
        unchecked: whether there are results that nothing was compared with.
    """

    title: str
    curves: list[Curve] = field(default_factory=list)
    unchecked: bool = False


def panels_along(machine: Machine, axis: str, quantity: Quantity) -> list[Panel]:
    """The curves of everything that was measured along an axis; what has one point alone is no curve.

    Args:
        machine: what was measured.
        axis: "frames", "size", "batch" or "threads".
        quantity: that is drawn; None where it was not measured.
    """
    points: dict[_Work, dict[str, dict[float, float]]] = {}
    unchecked = set()
    for run, record in machine.points(axis):
        work = _work(record, run.allocator)
        for result in record.results:
            value = None if is_yardstick(result) or result.agrees is False else quantity(result)
            if value and record.at:
                points.setdefault(work, {}).setdefault(result.way, {})[record.at] = value
                if result.agrees is None:
                    unchecked.add(work)
    telling = [any(one != other for one in column for other in column) for column in zip(*points, strict=True)]
    panels = []
    for work, ways in points.items():
        # What all have in common need not be said, but for the name.
        title = ", ".join(part for part, tells in zip(work, [True, *telling[1:]], strict=True) if part and tells)
        found = [Curve(way, sorted(own.items())) for way, own in ways.items() if len(own) > 1]
        if found:
            panels.append(Panel(title, sorted(found, key=lambda curve: curve.way == JUDGED), work in unchecked))
    return panels


def _work(record: Record, allocator: str) -> _Work:
    """What the points of a curve have in common."""
    options = [part for part in record.shape.split(",") if part and part.split("=")[0] not in _VARIED]
    threads = "" if record.sweep == THREADS else f"{record.threads} threads"
    what = f"{record.subject}, {record.dtype}, {record.mode}"
    return what, ", ".join(options), record.device, threads, f"allocator {allocator}"


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """The power of the axis that the quantity grows with: the slope of a straight line through the logarithms."""
    fitted = linear_regression([log(at) for at, _ in points], [log(value) for _, value in points])
    return fitted.slope


def draw(panels: Sequence[Panel], axis: str, label: str, scale: "Callable[[Axes], None]") -> "Figure":
    """A panel each, with a legend of its own that names the exponents.

    Args:
        panels: at least one.
        axis: its name, with the unit.
        label: of the quantity.
        scale: makes the quantity's axis logarithmic, with units.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    rows = -(-len(panels) // _COLUMNS)
    drawn, places = figure(rows, _COLUMNS, 0.2 + 2.9 * rows)
    ways = list(dict.fromkeys(curve.way for panel in panels for curve in panel.curves))
    for place, panel in zip(places.flat, panels, strict=False):
        for curve in panel.curves:
            at, values = zip(*curve.points, strict=True)
            named = f"{curve.way}, exponent {exponent(curve.points):.2f}"
            place.plot(at, values, label=named, **look_of(curve.way, ways).line())
        place.set_xscale("log")
        scale(place)
        ticks = sorted({at for curve in panel.curves for at, _ in curve.points})
        place.xaxis.set_major_locator(FixedLocator(ticks))
        place.xaxis.set_minor_locator(NullLocator())
        place.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        place.set_xlabel(axis)
        place.set_ylabel(label)
        place.set_title(fill(panel.title, 38), loc="left")
        place.grid(True)
        columns = 1 if any(len(curve.way) > 8 for curve in panel.curves) else 2
        place.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=columns)
    for place in list(places.flat)[len(panels) :]:
        place.axis("off")
    return drawn
