"""The roofline: rates that were reached against what copies and matrix products allow."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

from vtfast.bench.subjects.subject import MODES
from vtfast.report.document import Part, Picture, Section, Text
from vtfast.report.plotting import COLOURS, MARKERS, figure, legend, log_axis
from vtfast.report.sources import Machine, Measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Point", "draw_points", "draw_roof", "section"]


@dataclass(frozen=True)
class Point:
    """One piece of work.

    Args:
        label: what is drawn with one colour and marker.
        intensity: FLOP per byte that has to be moved.
        rate: FLOP/s of vtfast; None if its result is not right.
        peer: FLOP/s of the best peer; None if there is none.
        most: FLOP/s at the rate of exponentials; None if that is not known.
    """

    label: str
    intensity: float
    rate: float | None
    peer: float | None
    most: float | None = None


def draw_roof(
    panel: "Axes", copy: float | None, products: float | None, unit: float, span: tuple[float, float]
) -> None:
    """The slope of the copy and the flat line of matrix products, on logarithmic axes.

    Args:
        panel: where.
        copy: bytes a second; None if not known.
        products: FLOP/s of a GEMM; None if not known.
        unit: FLOP/s that the axis counts in.
        span: FLOP per byte where the slope begins, unless it would be too short to be seen, and where it ends if there
            is no line of products.
    """
    if products:
        panel.axhline(products / unit, color="black", linestyle="--", linewidth=1.2, label="GEMM, measured")
    if copy:
        knee = products / copy if products else span[1]
        begin = min(span[0], knee / 4)
        panel.plot(
            [begin, knee],
            [begin * copy / unit, knee * copy / unit],
            color="black",
            linewidth=1.2,
            label="copy bandwidth, measured",
        )


def draw_points(panel: "Axes", points: Iterable[Point], labels: Sequence[str], unit: float, size: float = 5) -> None:
    """Filled for vtfast, hollow for its best peer, a colour and a marker for each of `labels`; exponentials as a dash.

    Args:
        panel: where, with logarithmic axes.
        points: what is drawn.
        labels: in the order of colours.
        unit: FLOP/s that the axis counts in.
        size: of markers, in points.
    """
    for point in points:
        number = labels.index(point.label)
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        if point.most is not None:
            panel.plot(point.intensity, point.most / unit, marker="_", color=colour, markersize=1.8 * size)
        # The filled one last: it is the subject.
        for rate, face in ((point.peer, "none"), (point.rate, colour)):
            if rate is not None:
                panel.plot(
                    point.intensity, rate / unit, marker=marker, color=colour, markerfacecolor=face, markersize=size,
                    linestyle="none", label=point.label if face == colour else None,
                )  # fmt: skip


def section(machine: Machine, prefix: str) -> Section:
    """A panel a mode and dtype of all work whose FLOPs and bytes are known."""
    points = [(measured, point) for measured in machine.single() for point in _points(measured)]
    if not points:
        return Section("", [Text("No record has both its FLOPs and the bytes that it has to move.")])
    parts: list[Part] = []
    for number, allocator in enumerate(machine.allocators):
        own = [(measured, point) for measured, point in points if measured.run.allocator == allocator]
        if own:
            title = f"Roofline of {machine.name}, allocator {allocator}: FLOP/s against FLOP per byte"
            parts.append(
                Picture(
                    f"{prefix}-roofline-{number}", title, f"{_CAPTION} Allocator: {allocator}.", partial(_draw, own)
                )
            )
    return Section("", parts)


_CAPTION = (
    "Filled: vtfast. Hollow: its best peer. FLOPs are those of products, bytes the fewest that have to be moved. A dash"
    " is where exponentials alone would take a point, shown where they are what limits it."
)


def _points(measured: Measured) -> Iterable[Point]:
    record, ceilings = measured.record, measured.run.ceilings
    if not record.flops or not record.fewest_bytes or record.judged is None:
        return
    best, seconds = record.best_peer(), record.seconds
    peer = record.flops / best.timing.median if best and best.timing else None
    found, most = record.limit(ceilings), None
    if found is not None and found[0] == "exp":
        most = record.flops / found[1]
    if seconds or peer:
        yield Point(
            record.subject, record.flops / record.fewest_bytes, record.flops / seconds if seconds else None, peer, most
        )


def _draw(points: Sequence[tuple[Measured, Point]]) -> "Figure":
    from matplotlib.lines import Line2D

    dtypes = list(dict.fromkeys(measured.record.dtype for measured, _ in points))
    modes = [mode for mode in MODES if any(measured.record.mode == mode for measured, _ in points)]
    labels = list(dict.fromkeys(point.label for _, point in points))
    drawn, panels = figure(len(modes), len(dtypes), 0.9 + 2.7 * len(modes), sharex=True, sharey=True)
    intensities = [point.intensity for _, point in points]
    span = min(intensities) / 1.5, max(intensities) * 1.5
    for row, mode in enumerate(modes):
        for column, dtype in enumerate(dtypes):
            panel = panels[row, column]
            panel.set(xscale="log", yscale="log", title=f"{mode}, {dtype}")
            panel.grid(True, which="major")
            own = [(m, point) for m, point in points if (m.record.mode, m.record.dtype) == (mode, dtype)]
            measured = [m for m, _ in own]
            draw_roof(panel, _ceiling(measured, "copy"), _products(measured, dtype), 1e9, span)
            draw_points(panel, [point for _, point in own], labels, 1e9)
            if row == len(modes) - 1:
                panel.set_xlabel("FLOP per byte")
            if column == 0:
                panel.set_ylabel("GFLOP/s")
    for panel in panels.flat:
        log_axis(panel, "x")
        log_axis(panel, "y")
    grey: dict[str, Any] = {"color": "#555555", "marker": "o", "linestyle": "none"}
    keys = [
        Line2D([], [], label="vtfast", **grey), Line2D([], [], label="its best peer", markerfacecolor="none", **grey),
    ]  # fmt: skip
    if any(point.most is not None for _, point in points):
        keys.append(Line2D([], [], label="exponentials", color="#555555", marker="_", linestyle="none"))
    legend(drawn, columns=4, handles=keys)
    return drawn


def _products(measured: Sequence[Measured], dtype: str) -> float | None:
    """Of the dtype, or of the one whose units all of this work sums with."""
    sums = {record.sums for _, record in measured}
    (name,) = sums if len(sums) == 1 else (None,)
    return _ceiling(measured, f"GEMM {name or dtype.removeprefix('autocast ')}")


def _ceiling(measured: Sequence[Measured], name: str) -> float | None:
    """The yardstick that took part in the rounds, in the median, or else that of the runs."""
    found = [result for _, record in measured if (result := record.result(name)) is not None]
    rates = [result.flops / result.timing.median for result in found if result.timing and result.flops]
    rates = rates or [run.ceilings[name] for run, _ in measured if name in run.ceilings]
    return median(rates) if rates else None
