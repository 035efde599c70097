"""Files of results, put together by machine."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from vtfast.bench.measure import Result
from vtfast.bench.results import Record, Results, Run

__all__ = ["Machine", "Measured", "is_yardstick", "load"]


class Measured(NamedTuple):
    """A record, and the run that it is of."""

    run: Run
    record: Record


@dataclass
class Machine:
    """What was measured on one machine.

    Args:
        name: of its GPU, or of its processor.
        results: its runs; a record that was measured again is there once.
    """

    name: str
    results: Results = field(default_factory=Results)

    @property
    def allocators(self) -> list[str]:
        """Those that it was measured under, as users have it first."""
        return sorted({run.allocator for run in self.results.runs}, key=lambda name: (name != "default", name))

    def single(self) -> list[Measured]:
        """The records that are no point of a curve."""
        return [measured for measured in self.everything() if measured.record.sweep is None]

    def points(self, axis: str) -> list[Measured]:
        """The records that are points along an axis."""
        return [measured for measured in self.everything() if measured.record.sweep == axis]

    def everything(self) -> Iterator[Measured]:
        """Every record."""
        return (Measured(run, record) for run in self.results.runs for record in run.records)


def is_yardstick(result: Result) -> bool:
    """Whether a way computes something else: a rate to be held against, no peer."""
    return result.flops is not None or result.way in ("copy", "linear layers") or result.way.startswith("GEMM")


def load(paths: Sequence[Path]) -> list[Machine]:
    """Reads files of results, and of folders all that end in .json.

    What several files measured of the same work under the same allocator counts once, as the last of them has it.

    Raises:
        ValueError: a file is not one of results, or a folder has none.
        OSError: a file cannot be read.
    """
    machines: dict[str, Machine] = {}
    for path in _files(paths):
        for run in Results.load(path).runs:
            name = _machine_name(run)
            machines.setdefault(name, Machine(name)).results.add(run)
    return list(machines.values())


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        found = sorted(path.glob("*.json"))
        if not found:
            raise ValueError(f"{path} is a folder without files of results (*.json)")
        yield from found


def _machine_name(run: Run) -> str:
    if "device" in run.facts:
        return str(run.facts["device"])
    processor, cores = run.facts.get("processor", "unknown processor"), run.facts.get("cores")
    return str(processor) if cores is None else f"{processor}, {cores} cores"
