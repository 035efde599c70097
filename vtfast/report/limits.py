"""The share that vtfast reaches of the ceiling that limits each piece of work."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vtfast.bench.subjects.subject import MODES
from vtfast.report.document import Picture, Section, Text
from vtfast.report.plotting import COLOURS, figure, legend
from vtfast.report.sources import Machine, Measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["section"]

Share = tuple[Measured, str, float]  # with the name of the ceiling

# By what a ceiling counts: the colour and the marker.
_LOOKS = {"GEMM": (COLOURS[0], "s"), "copy": (COLOURS[1], "o"), "exp": (COLOURS[2], "^")}
_NAMES = {"GEMM": "limit: matrix products", "copy": "limit: copy bandwidth", "exp": "limit: exponentials"}


def section(machine: Machine, prefix: str) -> Section:
    """A row an operation or model, dtype and mode, and a dot a size."""
    shares = [
        (measured, *share)
        for measured in machine.single()
        if (share := measured.record.share_of_limit(measured.run.ceilings)) is not None
    ]
    if not shares:
        return Section("", [Text("No record has both an amount of work and a ceiling to hold it against.")])
    ends = min(share for *_, share in shares), max(share for *_, share in shares)
    caption = (
        "A dot is a size: 100 % would be as fast as the ceiling allows, if nothing else took any time. Beyond it are"
        " sizes in cache, or a yardstick that ran when the machine was slower."
    )
    if len(machine.allocators) > 1:
        caption += f" Filled: allocator {machine.allocators[0]}; hollow: {', '.join(machine.allocators[1:])}."
    title = f"Share of the limiting ceiling on {machine.name}: {ends[0]:.0%} to {ends[1]:.0%}"
    return Section("", [Picture(f"{prefix}-limits", title, caption, lambda: _draw(shares, machine.allocators[0]))])


def _draw(shares: Sequence[Share], usual: str) -> "Figure":
    from matplotlib.lines import Line2D

    subjects = list(dict.fromkeys(m.record.subject for m, *_ in shares))
    found = dict.fromkeys((m.record.subject, m.record.dtype) for m, *_ in shares)
    rows = sorted(found, key=lambda row: subjects.index(row[0]))
    others = {(m.record.subject, m.record.dtype) for m, *_ in shares if m.run.allocator != usual}
    modes = [mode for mode in MODES if any(m.record.mode == mode for m, *_ in shares)]
    drawn, panels = figure(1, len(modes), 0.95 + 0.22 * len(rows) + 0.08 * len(others), sharey=True)
    most = max(110.0, 104 * max(share for *_, share in shares))
    for panel, mode in zip(panels[0], modes, strict=True):
        panel.axvline(100, color="black", linewidth=0.9)
        for measured, ceiling, share in shares:
            if measured.record.mode == mode:
                colour, marker = _LOOKS[ceiling.split(" ")[0]]
                first = measured.run.allocator == usual
                name = (measured.record.subject, measured.record.dtype)
                row = rows.index(name) + (0 if name not in others else -0.2 if first else 0.2)
                face = colour if first else "none"
                panel.plot(100 * share, row, marker=marker, color=colour, markerfacecolor=face, alpha=0.85)
        panel.set(title=mode, xlim=(0, most), ylim=(len(rows) - 0.4, -0.6), xlabel="% of the limiting ceiling")
        panel.grid(True)
        panel.tick_params(axis="y", length=0)
    panels[0, 0].set_yticks(range(len(rows)), [", ".join(row) for row in rows])
    kinds = {ceiling.split(" ")[0] for _, ceiling, _ in shares}
    keys = [
        Line2D([], [], label=_NAMES[kind], color=colour, marker=marker, linestyle="none")
        for kind, (colour, marker) in _LOOKS.items()
        if kind in kinds
    ]
    legend(drawn, handles=keys)
    return drawn
