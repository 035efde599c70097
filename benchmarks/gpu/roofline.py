"""The roofline: what was reached against what the device can do, forward and forward + backward side by side.

`python -m benchmarks.gpu.roofline SCRATCH PICTURE`.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.gpu.attention import BOTH, FORWARD
from benchmarks.gpu.ceilings import COPY, EXP
from benchmarks.gpu.figures import Figures, ceilings_of
from benchmarks.gpu.report import figures_of, gather
from vtfast.report.roofline import Point, draw_points, draw_roof

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TERA = 1e12
_HEAD_DIM = 32  # of the line for exponentials


def draw(figures: Sequence[Figures], ceilings: Mapping[str, float], device: str, path: Path) -> None:
    """A point a shape in bfloat16 for vtfast (filled) and its best peer (hollow)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(13, 7), sharey=True)
    kinds = ("core", "space-time core")
    shown = [f for f in figures if f.facts.get("kind") in kinds and f.facts["dtype"] == "bfloat16" and f.flops]
    shapes = list(dict.fromkeys(f.facts["shape"] for f in shown))
    for panel, mode in zip(panels, (FORWARD, BOTH), strict=True):
        _ceilings(panel, ceilings, mode)
        points = [_point(f) for f in shown if f.facts["mode"] == mode]
        draw_points(panel, points, shapes, _TERA, size=9)
        panel.set(title=mode, xscale="log", yscale="log", xlabel="FLOP per byte that has to be moved")
        panel.grid(True, which="major", alpha=0.3)
    panels[0].set_ylabel("TFLOP/s of the matrix products")
    figure.suptitle(f"{device}: grid attention in bfloat16, vtfast (filled) and its best peer (hollow)")
    handles = [zip(*panel.get_legend_handles_labels(), strict=True) for panel in panels]
    entries = {label: handle for pairs in handles for handle, label in pairs}
    if entries:
        figure.legend(entries.values(), entries.keys(), loc="lower center", ncols=3, frameon=False)
    rows = -(-len(entries) // 3)
    figure.subplots_adjust(left=0.07, right=0.98, top=0.89, bottom=0.13 + 0.035 * rows, wspace=0.06)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _ceilings(panel: "Axes", ceilings: Mapping[str, float], mode: str) -> None:
    """The slope of the copy, and flat lines for products and exponentials."""
    exp = ceilings.get(EXP)
    draw_roof(panel, ceilings.get(COPY), ceilings.get("GEMM bfloat16"), _TERA, span=(1, 1000))
    if exp:
        # A score costs 4 FLOP a channel and one exponential forward; with the backward 14 and two.
        flops = _HEAD_DIM * (4 if mode == FORWARD else 7)
        label = f"exponentials, measured, head dimension {_HEAD_DIM}"
        panel.axhline(exp * flops / _TERA, color="black", linestyle=":", label=label)


def _point(f: Figures) -> Point:
    assert f.flops is not None
    assert f.fewest_bytes is not None
    best = f.best_peer()
    peer = None if best is None else f.flops_per_second(best)
    return Point(f.facts["shape"], f.flops / f.fewest_bytes, f.flops_per_second(), peer)


if __name__ == "__main__":
    found = gather(Path(sys.argv[1]))
    draw(figures_of(found), ceilings_of(found["ceilings"]), found["device"]["name"], Path(sys.argv[2]))
