"""The picture of the suite `frames`: time and memory against the number of frames."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Entry = dict[str, Any]  # kind, frames, way, timing, peak: a row of the suite

# Okabe and Ito's colours, which differ for colour-blind readers too; in grey, markers and dashes tell curves apart.
_STYLES: dict[str, dict[str, Any]] = {
    "divided, vtfast": {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    "divided, SDPA": {"color": "#56B4E9", "marker": "s", "linestyle": "--"},
    "joint, vtfast": {"color": "#D55E00", "marker": "^", "linestyle": "-"},
    "joint, SDPA": {"color": "#E69F00", "marker": "D", "linestyle": "--"},
}


def curves(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Rows by curve, in order of frames; without those that are wrong or were not measured."""
    right = [entry for entry in entries if entry["timing"] is not None and entry["agrees"] is not False]
    found: dict[str, list[Entry]] = {}
    for entry in sorted(right, key=lambda entry: int(entry["frames"])):
        found.setdefault(f"{entry['kind']}, {entry['way']}", []).append(entry)
    return found


def exponent(frames: Sequence[float], values: Sequence[float]) -> float:
    """The slope in logarithms, by least squares; NaN for fewer than two points."""
    if len(frames) < 2:
        return math.nan
    x, y = ([math.log(value) for value in values] for values in (frames, values))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - mean_x) ** 2 for a in x)


def draw(sections: Sequence[Sequence[Entry]], path: Path) -> None:
    """Time of a block's attention, time of the model, memory of the model, each with the exponents of its curves.

    Args:
        sections: rows of the attention of a block, and of the model.
        path: the picture's.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cores, models = map(curves, sections)
    figure, panels = pyplot.subplots(1, 3, figsize=(15, 5.6))
    _panel(panels[0], cores, 1e3, "Attention of one block", "milliseconds", seconds=True)
    _panel(panels[1], models, 1.0, "timesformer_base, clip to logits", "seconds", seconds=True)
    _panel(panels[2], models, 2**-20, "timesformer_base, memory beyond weights", "MiB at the peak", seconds=False)
    figure.suptitle("Forward at 224 x 224, one clip, float32: cost against frames, with exponents fitted to all points")
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _panel(panel: "Axes", found: dict[str, list[Entry]], factor: float, title: str, unit: str, seconds: bool) -> None:
    from matplotlib import ticker

    ticks: set[int] = set()
    for label, entries in found.items():
        frames = [entry["frames"] for entry in entries]
        values = [entry["timing"]["median"] if seconds else entry["peak"] for entry in entries]
        text = f"{label}: frames$^{{{exponent(frames, values):.2f}}}$"
        panel.plot(frames, [value * factor for value in values], label=text, markersize=7, **_STYLES[label])
        ticks.update(frames)
    panel.set(title=title, xscale="log", yscale="log", xlabel="frames", ylabel=unit)
    panel.set_xticks(sorted(ticks), [str(tick) for tick in sorted(ticks)])
    panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    panel.minorticks_off()
    panel.grid(True, alpha=0.3)
    # Curves rise to the right: the upper left corner is free once there is room above the highest.
    low, high = panel.get_ylim()
    panel.set_ylim(low, high * (high / low) ** 0.25)
    panel.legend(loc="upper left", frameon=False)
