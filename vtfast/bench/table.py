"""From measured results to tables: what may be said, and how it is written."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.measure import Case, Effort, Result, run_case

JUDGED = "vtfast"
# Peers with a column of their own for how many times faster the judged way is.
NAMED = ("eager", "compile", "NCDHW")


@dataclass(frozen=True)
class Section:
    """One table of the report.

    Args:
        title: heading.
        notes: what exactly is measured.
        columns: head of the table.
        rows: cells, as text.
        data: the numbers behind the cells, for JSON.
    """

    title: str
    notes: str
    columns: list[str]
    rows: list[list[str]]
    data: list[dict[str, Any]] = field(default_factory=list)

    def markdown(self) -> str:
        """The section without its heading."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return f"{self.notes}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def timing_section(
    title: str, notes: str, cases: Iterable[Case], effort: Effort, gemm_without_amx: float | None = None
) -> Section:
    """Runs the cases and tabulates them."""
    measured = []
    for case in cases:
        print(f"  {title}: {case.name}", file=sys.stderr, flush=True)
        measured.append((case, run_case(case, effort)))
    return tabulate(title, notes, measured, gemm_without_amx)


def tabulate(
    title: str, notes: str, measured: Sequence[tuple[Case, list[Result]]], gemm_without_amx: float | None = None
) -> Section:
    """A row a case, a column a way, then the ratios."""
    ways = list(dict.fromkeys(result.way for _, results in measured for result in results))
    compared = [way for way in ways if any(_was_compared(way, results) for _, results in measured)]
    yardsticks = [way for way in ways if way not in compared]
    # vtfast under torch.compile is no peer of vtfast.
    peers = [way for way in compared if not way.startswith(JUDGED)]
    shown = [way for way in ways if not _is_gemm(way)]
    rows, data = [], []
    for case, results in measured:
        by_way = {result.way: result for result in results}
        judged = by_way[JUDGED]
        ratios: dict[str, float | None] = {
            **{f"x {way}": speedup(judged, by_way.get(way)) for way in peers if way in NAMED},
            "x best peer": best_speedup(judged, [by_way[way] for way in peers if way in by_way and way != "eager"]),
            **{f"/ {way}": excess(judged, by_way.get(way)) for way in yardsticks if not _is_gemm(way)},
            **_rates(case, judged, by_way, gemm_without_amx),
        }
        data.append({"case": case.name, **case.facts, "ways": [asdict(result) for result in results], "ratios": ratios})
        rows.append([case.name, *(cell(by_way.get(way)) for way in shown)])
    columns = ["", *(f"{way}, ms" for way in shown)]
    names = list(dict.fromkeys(name for entry in data for name in entry["ratios"]))
    for name in names:
        values = [entry["ratios"].get(name) for entry in data]
        if any(value is not None for value in values):
            columns.append(name)
            for row, value in zip(rows, values, strict=True):
                row.append(_ratio(name, value))
    return Section(title, notes, columns, rows, data)


def speedup(judged: Result, peer: Result | None) -> float | None:
    """How many times faster `judged` is; None, never a number, unless both gave the right result."""
    if peer is None or peer.timing is None or judged.timing is None or not (judged.agrees and peer.agrees):
        return None
    return peer.timing.median / judged.timing.median


def best_speedup(judged: Result, peers: Sequence[Result]) -> float | None:
    """Speed-up against the fastest peer whose result is right."""
    ratios = [ratio for peer in peers if (ratio := speedup(judged, peer)) is not None]
    return min(ratios) if ratios else None


def excess(judged: Result, yardstick: Result | None) -> float | None:
    """Time as a multiple of the yardstick's; None if the result is wrong."""
    if yardstick is None or yardstick.timing is None or judged.timing is None or not judged.agrees:
        return None
    return judged.timing.median / yardstick.timing.median


def _rates(
    case: Case, judged: Result, by_way: dict[str, Result], gemm_without_amx: float | None
) -> dict[str, float | None]:
    """GFLOP/s, and the share of the rate of each GEMM that took part in the rounds."""
    if case.flops is None or judged.timing is None or not judged.agrees:
        return {}
    rate = case.flops / judged.timing.median
    shares: dict[str, float | None] = {"GFLOP/s": rate / 1e9}
    for way, result in by_way.items():
        if _is_gemm(way) and result.timing is not None and result.flops is not None:
            shares["% of GEMM"] = 100 * rate * result.timing.median / result.flops
            if gemm_without_amx and "bfloat16" in way:
                shares["% of GEMM without AMX"] = 100 * rate / gemm_without_amx
    return shares


def _was_compared(way: str, results: Sequence[Result]) -> bool:
    return any(result.way == way and (result.agrees is not None or result.note) for result in results)


def _is_gemm(way: str) -> bool:
    return way.startswith("GEMM")


def cell(result: Result | None) -> str:
    """Time and spread, or why there is none; marked if the result is wrong."""
    if result is None:
        return ""
    if result.timing is None:
        return result.note or "-"
    text = f"{milliseconds(result.timing.median)} ± {50 * result.timing.spread:.0f} %"
    return f"{text} (DIFFERS: {max(result.errors):.1e})" if result.agrees is False else text


def milliseconds(seconds: float) -> str:
    """Three figures."""
    return f"{seconds * 1e3:.{2 if seconds < 0.01 else 1 if seconds < 0.1 else 0}f}"


def _ratio(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if name.startswith(("%", "GFLOP")) else f"{value:.2f}"
