"""What became slower, or needs more memory, since an earlier file of results."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vtfast.bench.measure import Result
from vtfast.bench.results import JUDGED, Record, Results

# A difference below this is noise whatever the spreads say: of time, and of memory with something to spare.
_LEAST, _LEAST_MEMORY, _SPARE_BYTES = 0.03, 0.1, 2**20


@dataclass(frozen=True)
class Change:
    """Of one record between two files.

    Args:
        record: the new one.
        allocator: under which both were measured.
        ratio: new time of vtfast over the old one, on a machine as fast as the old.
        drift: how much slower the machine was, by the ways that are not vtfast's; 1.0 if there are none in common.
        noise: share by which times scatter in both files together.
        memory: new memory at the peak over the old one; None if either lacks it.
        wrong: whether the result is wrong now and was not.
    """

    record: Record
    allocator: str
    ratio: float
    drift: float
    noise: float
    memory: float | None
    wrong: bool

    @property
    def is_slower(self) -> bool:
        """Beyond the noise."""
        return self.ratio > 1 + self.noise

    @property
    def is_faster(self) -> bool:
        """Beyond the noise."""
        return self.ratio < 1 / (1 + self.noise)

    @property
    def needs_more(self) -> bool:
        """Memory, beyond what an allocator does one time and not another."""
        return self.memory is not None and self.memory > 1 + _LEAST_MEMORY

    @property
    def is_worse(self) -> bool:
        """In any way."""
        return self.is_slower or self.needs_more or self.wrong


def compare(new: Results, old: Results) -> tuple[list[Change], list[Record]]:
    """The changes of all records that both have, and the new records that `old` has not."""
    known = {(run.allocator, *record.key): record for run in old.runs for record in run.records}
    changes, unknown = [], []
    for run in new.runs:
        for record in run.records:
            before = known.get((run.allocator, *record.key))
            change = None if before is None else _change(record, before, run.allocator)
            if change is None:
                unknown.append(record)
            else:
                changes.append(change)
    return changes, unknown


def _change(record: Record, before: Record, allocator: str) -> Change | None:
    new, old = record.judged, before.judged
    if new is None or old is None or new.timing is None or old.timing is None:
        return None
    drifts = list(_drifts(record.results, before.results))
    drift = statistics.median(drifts) if drifts else 1.0
    # The drift is known as well as the ways scatter that it was taken from.
    scatter = statistics.pstdev(drifts) / drift if len(drifts) > 1 else 0.0
    noise = (new.timing.spread + old.timing.spread) / 2 + scatter
    return Change(
        record,
        allocator,
        ratio=new.timing.median / old.timing.median / drift,
        drift=drift,
        noise=max(_LEAST, noise),
        memory=_memory(new, old),
        wrong=new.agrees is False and old.agrees is not False,
    )


def _drifts(new: Sequence[Result], old: Sequence[Result]) -> Iterator[float]:
    before = {result.way: result.timing.median for result in old if result.timing is not None}
    for result in new:
        if result.timing is not None and result.way in before and not result.way.startswith(JUDGED):
            yield result.timing.median / before[result.way]


def _memory(new: Result, old: Result) -> float | None:
    if new.peak_bytes is None or old.peak_bytes is None:
        return None
    return (new.peak_bytes + _SPARE_BYTES) / (old.peak_bytes + _SPARE_BYTES)
