"""Measured records as tables: what may be said, and how it is written."""

from collections.abc import Sequence

from vtfast.bench.measure import Result
from vtfast.bench.results import JUDGED, Ceilings, Record

Rows = list[list[str]]

_MIB = 2**20


def table(records: Sequence[Record], ceilings: Ceilings) -> Rows:
    """A row a record of one subject and mode, below the names of the columns.

    Ways with a right or a wrong result, then yardsticks, then the ratios: to each peer by name, to the fastest of
    them, the share of the ceiling that limits the work, and memory at the peak where it was measured.
    """
    ways = list(dict.fromkeys(result.way for record in records for result in record.results))
    peers = [way for way in ways if _was_compared(way, records) and not way.startswith(JUDGED)]
    shown = [way for way in ways if not way.startswith("GEMM")]
    columns = ["", *(f"{way}, ms" for way in shown), *(f"x {peer}" for peer in peers), "x best peer", "% of limit"]
    has_memory = any(result.peak_bytes is not None for record in records for result in record.results)
    columns += ["MiB", "best peer's MiB"] if has_memory else []
    rows = [columns]
    for record in records:
        best = record.best_peer()
        row = [f"{record.name}, {record.dtype}", *(_time(record.result(way)) for way in shown)]
        row += [ratio(record.speedup(peer)) for peer in peers]
        row += [ratio(None if best is None else record.speedup(best.way)), _limit(record, ceilings)]
        row += [_mib(record.judged), _mib(_leanest(record))] if has_memory else []
        rows.append(row)
    return _without_empty_columns(rows)


def notes(records: Sequence[Record]) -> list[str]:
    """Why ways have no time, a line each."""
    found = (f"{result.way}: {result.note}" for record in records for result in record.results if result.note)
    return list(dict.fromkeys(found))


def by_table(records: Sequence[Record]) -> dict[tuple[str, str, str | None], list[Record]]:
    """Records that make a table each: those of one subject, mode and axis."""
    tables: dict[tuple[str, str, str | None], list[Record]] = {}
    for record in records:
        tables.setdefault((record.subject, record.mode, record.sweep), []).append(record)
    return tables


def as_text(rows: Rows) -> str:
    """For a terminal: columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(_aligned, row, range(len(row)), widths)).rstrip() for row in rows)


def _aligned(text: str, column: int, width: int) -> str:
    return f"{text:<{width}}" if column == 0 else f"{text:>{width}}"


def as_markdown(rows: Rows) -> str:
    """For a document."""
    head, *others = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *others))


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


def ratio(value: float | None) -> str:
    """Three figures, or a dash."""
    return "-" if value is None else f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def _time(result: Result | None) -> str:
    """As `cell`, without reasons, which would widen the column."""
    return "-" if result is not None and result.timing is None else cell(result)


def _limit(record: Record, ceilings: Ceilings) -> str:
    share = record.share_of_limit(ceilings)
    return "-" if share is None else f"{100 * share[1]:.0f} ({share[0]})"


def _mib(result: Result | None) -> str:
    return "-" if result is None or result.peak_bytes is None else f"{result.peak_bytes / _MIB:.1f}"


def _leanest(record: Record) -> Result | None:
    """Of the others whose result is right."""
    others = [r for r in record.results if r.agrees and r.peak_bytes is not None and not r.way.startswith(JUDGED)]
    return min(others, key=lambda r: r.peak_bytes or 0, default=None)


def _was_compared(way: str, records: Sequence[Record]) -> bool:
    results = [record.result(way) for record in records]
    return any(result is not None and (result.agrees is not None or result.note) for result in results)


def _without_empty_columns(rows: Rows) -> Rows:
    kept = [i for i in range(len(rows[0])) if i == 0 or any(row[i] not in ("", "-") for row in rows[1:])]
    return [[row[i] for i in kept] for row in rows]
