"""The report of a run, from what its stages left behind."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.correctness import summary as tests_summary
from benchmarks.gpu.figures import Figures, ceilings_of, over_best_peer, targets, teraflops
from benchmarks.gpu.jobs import read
from benchmarks.gpu.records import results_of
from vtfast.bench.table import cell

PICTURE = "roofline.png"
UNKNOWN = "unknown device"

_UNITS = {"copy": (1e9, "GB/s"), "exp": (1e12, "T exp/s")}
_NOTE = 120  # characters of why a stage is not ok
_GEMM_UNIT = (1e12, "TFLOP/s")

_HOW = (
    "Medians of interleaved rounds in one process, ± half the distance of the quartiles, by CUDA events; a buffer of "
    "several times the cache is written before each run. Attention: the device waits before each run until the host "
    "has queued it, so that launching costs nobody anything; whole models include it. Each result is compared with the "
    "reference in float64, and one that is off is marked DIFFERS and gets no rate or ratio. Peers start from packed "
    "qkv in the token grid and make the copies they need; in a Swin block they start where the block does, with one "
    "roll and partition of C channels. Over space and time they start where the block of the published models does, "
    "with time fastest, k and v of space in frames; marked packed, from qkv in vtfast's order; alone, without a copy. "
    "Pooling attention starts from pooled q, k and v, the peers' by heads already; token pooling from packed qkv, and "
    "its GB/s counts the tokens that lie in a window. Depthwise convolution of volumes that lie in the layout of the "
    "way, in NCDHW by torch's own kernels and in channels_last_3d by cuDNN's; GB/s counts input and result once, its "
    "TFLOP/s the taps within the grid, and its GEMM is that of float32, which it sums in. "
    "GB/s counts qkv and output once (in the backward also qkv, the output's "
    "gradient and that of qkv), TFLOP/s the matrix products, two forward and five backward. The limit is the ceiling "
    "that takes longest for the work, its share that time over vtfast's. Extra is memory at the peak beyond inputs and "
    "results."
)


def gather(scratch: Path) -> dict[str, Any]:
    """Everything that is there; a stage that left nothing is an empty entry."""

    def load(name: str, default: Any) -> Any:
        path = scratch / name
        return json.loads(path.read_text()) if path.exists() else default

    return {
        "device": load("probe.json", {"name": UNKNOWN}),
        "stages": load("stages.json", []),
        "tests": tests_summary(scratch / "tests.jsonl"),
        "ceilings": read(scratch / "ceilings.jsonl"),
        "models": read(scratch / "models.jsonl"),
        "attention": read(scratch / "attention.jsonl"),
        "depthwise": read(scratch / "depthwise.jsonl"),
    }


def figures_of(results: dict[str, Any]) -> list[Figures]:
    """Of every case, models first."""
    ceilings = ceilings_of(results["ceilings"])
    stages = ("models", "attention", "depthwise")
    return [Figures.of(record, ceilings) for stage in stages for record in results.get(stage, [])]


def summary(results: dict[str, Any]) -> str:
    """What fits on a screen."""
    parts = [f"{results['device']['name']}", _aligned(_stages(results))]
    counts, failures = results["tests"]["counts"], results["tests"]["failures"]
    parts.append(f"tests: {', '.join(f'{count} {outcome}' for outcome, count in sorted(counts.items())) or 'none ran'}")
    parts += [f"  {failure['test']}: {_last_line(failure['why'])[:140]}" for failure in failures[:12]]
    parts.append("ceilings: " + (", ".join(f"{name} {value}" for name, value in _ceilings(results)) or "none"))
    parts.append(_aligned(_targets(figures_of(results))))
    return "\n".join(parts)


def markdown(results: dict[str, Any], picture: str | None = None) -> str:
    """The whole report."""
    figures, device = figures_of(results), results["device"]
    facts = ", ".join(f"{name} {value}" for name, value in device.items() if name != "name")
    by_kind = {kind: [f for f in figures if f.facts.get("kind") == kind] for kind in _KINDS}
    parts = [f"# {device['name']}", "Written by `make gpu`.", f"{facts}.", "## Targets", _table(_targets(figures))]
    parts += [f"![Roofline]({picture})"] if picture else []
    parts += ["## Stages", _table(_stages(results)), "## Tests", *_tests(results)]
    parts += ["## Ceilings", _table([["", "measured"], *map(list, _ceilings(results))]), "## Figures", _HOW]
    for kind, title in _KINDS.items():
        parts += [f"### {title}", _table(_rates(by_kind[kind]))] if by_kind[kind] else []
    parts += ["## Every way", _table(_every_way(figures))]
    return "\n\n".join(parts) + "\n"


_KINDS = {
    "model": "Models",
    "core": "Attention from packed qkv",
    "core of a block": "Attention as in a Swin block",
    "space-time core": "Attention over space and time",
    "pooling core": "Pooling attention",
    "pooling block": "Pooling attention from packed qkv, with its convolutions and norms",
    "token pooling": "Token pooling from packed qkv, with its norms, and of the skip path",
    "depthwise convolution": "Depthwise 3D convolution",
    "layer": "Attention with its linear layers",
    "one clip, replayed": "One clip, replayed as a CUDA graph",
}


def _stages(results: dict[str, Any]) -> list[list[str]]:
    rows = [
        [stage["stage"], stage["status"], f"{stage['seconds']:.0f}", stage["note"][:_NOTE]]
        for stage in results["stages"]
    ]
    return [["stage", "", "s", ""], *rows]


def _targets(figures: Sequence[Figures]) -> list[list[str]]:
    by_case, rows = {f.case: f for f in figures}, [["target", "wanted", "got", ""]]
    for target in targets():
        case = by_case.get(target.case)
        got = target.got(case) if case is not None and case.results else None
        wanted = f"{'few' if target.wanted is None else f'{target.wanted:g}'} {target.unit}"
        if got is None or target.wanted is None:
            verdict = "not measured" if got is None else ""
        else:
            verdict = "reached" if got >= target.wanted else "missed"
        rows.append([target.case, wanted, "-" if got is None else f"{got:.3g}", verdict])
    return rows


def _tests(results: dict[str, Any]) -> Iterable[str]:
    tests = results["tests"]
    yield ", ".join(f"{count} {outcome}" for outcome, count in sorted(tests["counts"].items())) or "None ran."
    if tests["failures"]:
        yield _table([["file", "failures"], *([name, str(n)] for name, n in tests["failures_by_file"].items())])
        for failure in tests["failures"][:40]:
            yield f"`{failure['test']}`\n\n```\n{failure['why']}\n```"


def _ceilings(results: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name, rate in ceilings_of(results["ceilings"]).items():
        factor, unit = _UNITS.get(name, _GEMM_UNIT)
        rows.append((name, f"{rate / factor:.3g} {unit}"))
    return rows


def _rates(figures: Sequence[Figures]) -> list[list[str]]:
    head = ["", "vtfast, ms", "best peer", "x best peer", "x eager", "x compile", "GB/s", "% of copy", "TFLOP/s"]
    rows = [[*head, "limit", "% of limit", "extra, MiB", "best peer's, MiB"]]
    for f in figures:
        peer, limit, rate = f.best_peer(), f.limit(), f.bytes_per_second()
        share = None if limit is None or f.seconds is None else 100 * limit[1] / f.seconds
        rows.append([
            f.case, cell(f.judged) if f.judged else f.note, peer or "-", _number(over_best_peer(f), ".2f"),
            _number(f.over("eager"), ".2f"), _number(f.over("compile"), ".2f"), _number(rate and rate / 1e9, ".0f"),
            _number(f.share_of_copy(), ".0f"), _number(teraflops(f), ".0f"), limit[0] if limit else "-",
            _number(share, ".0f"), _number(f.extra_mib(), ".1f"), _number(f.extra_mib(peer) if peer else None, ".1f"),
        ])  # fmt: skip
    return rows


def _every_way(figures: Sequence[Figures]) -> list[list[str]]:
    rows = [["", "way", "ms", "largest error", "extra, MiB"]]
    for f in figures:
        rows += [[f.case, "-", f.note, "-", "-"]] if f.note else []
        for result in f.results:
            error = f"{max(result.errors):.1e}" if result.errors else "-"
            rows.append([f.case, result.way, cell(result), error, _number(f.extra_mib(result.way), ".1f")])
    return rows


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(value.replace('|', '/') for value in line)} |" for line in lines)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    padded = [[value.ljust(width) for value, width in zip(row, widths, strict=True)] for row in rows]
    return "\n".join("  ".join(row).rstrip() for row in padded)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("E ")]
    return (errors or lines or ["no reason"])[-1]


def write(scratch: Path, folder: Path) -> None:
    """report.md, results.json, and bench.json for `vtfast report`, beside the picture if there is one."""
    results = gather(scratch)
    ceilings = ceilings_of(results["ceilings"])
    results_of(results["device"], figures_of(results), ceilings).save(folder / "bench.json")
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "report.md").write_text(markdown(results, PICTURE if (folder / PICTURE).exists() else None))
