"""How plots look, and how they become SVG and PNG: the same bytes every time."""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log
from typing import TYPE_CHECKING, Any

from vtfast.bench.results import JUDGED
from vtfast.report.document import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "MARKERS",
    "WIDTH",
    "Look",
    "figure",
    "legend",
    "log_axis",
    "look_of",
    "memory_axis",
    "png",
    "svg",
    "tick_text",
    "time_axis",
]

# Okabe and Ito's colours, which differ for colour-blind readers too; in grey, markers, dashes and hatches tell.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*X"
_DASHES: Sequence[Any] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))
_HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++")

# Inches: a column of the page, and of paper.
WIDTH = 7.2

_SETTINGS: Any = {
    "font.family": "sans-serif", "font.size": 8, "axes.titlesize": 8.5, "axes.titleweight": "bold",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": False, "axes.axisbelow": True,
    "axes.edgecolor": "#555555", "grid.color": "#d8d8d8", "grid.linewidth": 0.6, "hatch.linewidth": 0.6,
    "lines.linewidth": 1.4, "lines.markersize": 5, "legend.frameon": False, "legend.fontsize": 7.5,
    "xtick.labelsize": 7.5, "ytick.labelsize": 7.5, "figure.facecolor": "white", "savefig.facecolor": "white",
    # Names of files and machines may hold anything, a dollar too.
    "text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "vtfast",
}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """Of one way of doing the work, in every plot."""

    colour: str
    marker: str
    dashes: Any
    hatch: str

    def line(self) -> dict[str, Any]:
        """Arguments of `Axes.plot`."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.dashes}

    def bar(self) -> dict[str, Any]:
        """Arguments of `Axes.barh`."""
        return {"facecolor": self.colour, "hatch": self.hatch, "edgecolor": "white", "linewidth": 0.0}


_KNOWN = (JUDGED, "eager", "SDPA", "compile", "FlexAttention")


def look_of(way: str, ways: Sequence[str] = ()) -> Look:
    """The same for vtfast and the usual peers in every plot; for the others by their place in `ways`."""
    others = [name for name in ways if name not in _KNOWN]
    number = _KNOWN.index(way) if way in _KNOWN else len(_KNOWN) + (others.index(way) if way in others else 0)
    return Look(*(choices[number % len(choices)] for choices in (COLOURS, MARKERS, _DASHES, _HATCHES)))


def figure(rows: int, columns: int, height: float, **options: Any) -> "tuple[Figure, Any]":
    """A figure of the page's width, and its panels as an array of two dimensions.

    Args:
        rows: of panels.
        columns: of panels.
        height: of all, in inches.
        **options: of `Figure.subplots`.
    """
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(WIDTH, height), layout="constrained")
    return drawn, drawn.subplots(rows, columns, squeeze=False, **options)


def legend(drawn: "Figure", columns: int = 4, handles: Sequence[Any] = (), title: str | None = None) -> None:
    """One legend above all panels, with every label once."""
    entries = {handle.get_label(): handle for handle in handles}
    for panel in drawn.axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        drawn.legend(entries.values(), entries.keys(), loc="outside upper center", ncols=columns, title=title)


def tick_text(value: float) -> str:
    """Numbers as people write them, where matplotlib would write powers."""
    return f"{value:,.6g}"


def time_axis(panel: "Axes", axis: str = "y") -> None:
    """A logarithmic axis of seconds, in units that people say."""
    log_axis(panel, axis, _seconds)


def memory_axis(panel: "Axes", axis: str = "y") -> None:
    """A logarithmic axis of bytes."""
    log_axis(panel, axis, lambda value: f"{value / 2**30:g} GiB" if value >= 2**30 else f"{value / 2**20:g} MiB", 2)


def log_axis(panel: "Axes", axis: str, text: Callable[[float], str] = tick_text, base: int = 10) -> None:
    """A logarithmic axis with ticks at round numbers, for what is drawn already.

    Args:
        panel: where.
        axis: "x" or "y".
        text: of a tick.
        base: 2 where units count in powers of it.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    getattr(panel, f"set_{axis}scale")("log", base=base)
    ticks = getattr(panel, f"{axis}axis")
    low, high = getattr(panel, f"get_{axis}lim")()
    ticks.set_major_locator(FixedLocator(_round_numbers(low, high, base)))
    ticks.set_minor_locator(NullLocator())
    ticks.set_major_formatter(FuncFormatter(lambda value, _: text(value)))


# Between one power and the next, ever closer.
_STEPS: dict[int, Sequence[Sequence[float]]] = {
    2: ((1,), (1, 1.5), (1, 1.25, 1.5, 1.75)),
    10: ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)),
}


def _round_numbers(low: float, high: float, base: int) -> list[float]:
    """As many as there is room for."""
    powers = [float(base) ** power for power in range(floor(log(low, base)), ceil(log(high, base)) + 1)]
    found: list[float] = []
    for steps in _STEPS[base]:
        found = [step * power for power in powers for step in steps if low <= step * power <= high]
        if len(found) >= 3:
            break
    return found[:: 1 + len(found) // 9]


def _seconds(value: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size * 0.999:
            return f"{tick_text(value / size)} {unit}"
    return f"{value / 1e-9:.3g} ns"


@contextmanager
def _styled() -> Iterator[None]:
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'vtfast[report]'") from error
    with matplotlib.rc_context(_SETTINGS):
        yield


def svg(picture: Picture) -> str:
    """The plot as an element of a page: text as text, and names that no other plot of the page has."""
    out = io.StringIO()
    with _styled():
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        picture.draw().savefig(out, format="svg", metadata=nothing)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    # Every file counts its parts from 1, and one page has them all.
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{picture.name}-", text)
    head = f'<svg role="img" aria-labelledby="{picture.name}-title"'
    title = f'<title id="{picture.name}-title">{escape(picture.title)}</title>'
    return re.sub(r"<svg([^>]*)>", lambda match: f"{head}{match[1]}>\n{title}", text, count=1)


def png(picture: Picture) -> bytes:
    """The plot as a file."""
    out = io.BytesIO()
    with _styled():
        picture.draw().savefig(out, format="png", dpi=150, metadata={"Software": None})
    return out.getvalue()
