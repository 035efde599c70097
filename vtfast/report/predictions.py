"""What the cost model predicts for GPUs, kept apart from what was measured."""

from collections.abc import Sequence

from vtfast.bench.table import milliseconds
from vtfast.plan.study import PREDICTED, Row
from vtfast.report.document import Section, Table, Text

__all__ = ["section"]


def section(rows: Sequence[Row]) -> Section:
    """A table a model.

    Args:
        rows: of `vtfast.plan.study.scaling_study`.
    """
    head = ["", "GPU", "forward, ms", "bound", "GiB", "training step, ms", "bound", "GiB", "fits"]
    tables = []
    for model in dict.fromkeys(row.model for row in rows):
        own = [row for row in rows if row.model == model]
        clips = f"{own[0].batch} clips of {own[0].size} x {own[0].size}, {own[0].dtype}"
        tables.append(Table(f"{model}, {clips} ({PREDICTED})", [head, *map(_cells, own)]))
    note = f"Nothing in this section was measured: {PREDICTED}. It follows from a cost model and from data sheets."
    return Section("Predictions for GPUs", [Text(note), *tables])


def _cells(row: Row) -> list[str]:
    return [
        f"{row.frames} frames", row.gpu,
        milliseconds(row.inference_seconds), row.inference_bound, f"{row.inference_bytes / 2**30:.1f}",
        milliseconds(row.training_seconds), row.training_bound, f"{row.training_bytes / 2**30:.1f}",
        "yes" if row.fits else "no",
    ]  # fmt: skip
