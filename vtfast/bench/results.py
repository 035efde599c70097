"""What was measured, as it is kept in files: runs, their records, and what may be said of them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vtfast.bench.measure import Result, Timing

JUDGED = "vtfast"

FORMAT = 1

Ceilings = Mapping[str, float]


def speedup(judged: Result, peer: Result | None) -> float | None:
    """How many times faster `judged` is; None, never a number, unless both gave the right result."""
    if peer is None or peer.timing is None or judged.timing is None or not (judged.agrees and peer.agrees):
        return None
    return peer.timing.median / judged.timing.median


def fastest(results: Iterable[Result]) -> Result | None:
    """The fastest whose result is right, of those that are not vtfast's, compiled or not."""
    right = [r for r in results if r.timing is not None and r.agrees and not r.way.startswith(JUDGED)]
    return min(right, key=lambda r: r.timing.median if r.timing else 0.0, default=None)


def rates_of(results: Iterable[Result]) -> dict[str, float]:
    """Units a second of every way that counts its own work: yardsticks."""
    return {r.way: r.flops / r.timing.median for r in results if r.timing is not None and r.flops is not None}


def limit(ceilings: Ceilings, needs: Mapping[str, float | None]) -> tuple[str, float] | None:
    """Which ceiling no implementation gets past, and the seconds that it takes alone.

    Args:
        ceilings: units a second by name.
        needs: units of the work by the same names; None where it is not known.
    """
    times = {name: amount / ceilings[name] for name, amount in needs.items() if amount and name in ceilings}
    return max(times.items(), key=lambda item: item[1]) if times else None


@dataclass(frozen=True)
class Record:
    """One piece of work, measured in several ways.

    Args:
        subject: the operation or the model.
        kind: "op" or "model".
        name: of the size, for people.
        shape: the size, as `vtfast bench --shape` takes it.
        dtype: "float32", "bfloat16", "float16" or "autocast bfloat16".
        mode: "forward" or "forward + backward"; the latter of a model is a training step without optimiser.
        device: "cpu" or "cuda".
        threads: of the process.
        sweep: the axis that this is a point of ("frames", "size", "batch", "threads"); None of a single measurement.
        at: where on that axis.
        flops: floating point operations of products (of convolutions, of taps); None if not known.
        exps: exponentials.
        fewest_bytes: what any implementation has to read and write.
        sums: dtype of the GEMM whose units the work sums with, where that is not `dtype`'s.
        results: of every way.
    """

    subject: str
    kind: str
    name: str
    shape: str
    dtype: str
    mode: str
    device: str = "cpu"
    threads: int = 1
    sweep: str | None = None
    at: float | None = None
    flops: int | None = None
    exps: int | None = None
    fewest_bytes: int | None = None
    sums: str | None = None
    results: tuple[Result, ...] = ()

    @property
    def key(self) -> tuple[object, ...]:
        """What makes it another record, and no other measurement of the same."""
        return (
            self.subject, self.shape, self.dtype, self.mode, self.device, self.threads, self.sweep, self.at,
        )  # fmt: skip

    @property
    def title(self) -> str:
        """One line that names it."""
        return f"{self.subject}, {self.name}, {self.dtype}, {self.mode}"

    def result(self, way: str) -> Result | None:
        """What a way came to."""
        return next((result for result in self.results if result.way == way), None)

    @property
    def judged(self) -> Result | None:
        """What vtfast came to."""
        return self.result(JUDGED)

    @property
    def seconds(self) -> float | None:
        """Of vtfast; None if its result is wrong."""
        judged = self.judged
        return judged.timing.median if judged and judged.timing and judged.agrees is not False else None

    def speedup(self, way: str) -> float | None:
        """How many times faster than a way vtfast is; None unless both are right."""
        return None if self.judged is None else speedup(self.judged, self.result(way))

    def best_peer(self) -> Result | None:
        """The fastest way of others whose result is right."""
        return fastest(self.results)

    def limit(self, ceilings: Ceilings) -> tuple[str, float] | None:
        """Which ceiling no implementation gets past here, and the seconds that it takes alone.

        A yardstick that took part in the rounds counts rather than the run's: it met the same machine.
        """
        gemm = f"GEMM {self.sums or self.dtype.removeprefix('autocast ')}"
        ceilings = {**ceilings, **self.yardsticks()}
        return limit(ceilings, {"copy": self.fewest_bytes, gemm: self.flops, "exp": self.exps})

    def yardsticks(self) -> dict[str, float]:
        """Units a second of the ceilings that took part in the rounds."""
        return rates_of(r for r in self.results if r.way.startswith("GEMM") or r.way == "copy")

    def share_of_limit(self, ceilings: Ceilings) -> tuple[str, float] | None:
        """Which ceiling, and the share of it that vtfast reaches; None if its result is wrong."""
        found = self.limit(ceilings)
        return None if found is None or self.seconds is None else (found[0], found[1] / self.seconds)


@dataclass
class Run:
    """What one process, or one after the other under the same settings, measured.

    Args:
        facts: the machine and the software, as in `environment.facts`.
        ceilings: what the machine can do at most, units a second by name.
        records: in order of measurement.
    """

    facts: dict[str, Any]
    ceilings: dict[str, float] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)

    @property
    def allocator(self) -> str:
        """Which allocator: "default" or "kept"."""
        return str(self.facts.get("allocator", "default")).split(" ")[0]


@dataclass
class Results:
    """A file of results."""

    runs: list[Run] = field(default_factory=list)

    @staticmethod
    def load(path: Path) -> "Results":
        """Reads a file.

        Raises:
            ValueError: the file is not one of results; the message says what it is instead.
        """
        try:
            content = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is no file of results: {error}") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT or "runs" not in content:
            found = content.get("format") if isinstance(content, dict) else type(content).__name__
            raise ValueError(f"{path} is no file of results of format {FORMAT}, found {found!r}")
        return Results([_run_of(fields) for fields in content["runs"]])

    def save(self, path: Path) -> None:
        """Writes a file; one that is there keeps its content until the new one is complete."""
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.unfinished")
        unfinished.write_text(json.dumps({"format": FORMAT, "runs": [_as_json(run) for run in self.runs]}, indent=1))
        unfinished.replace(path)

    def add(self, run: Run) -> None:
        """Takes a run in. Records of other runs under the same allocator that it measured again are dropped."""
        again = {record.key for record in run.records}
        for other in self.runs:
            if other is not run and other.allocator == run.allocator:
                other.records[:] = [record for record in other.records if record.key not in again]
        self.runs[:] = [other for other in self.runs if other.records and other is not run]
        self.runs.append(run)

    def find(self, allocator: str = "default", **wanted: object) -> list[tuple[Run, Record]]:
        """Records whose fields have these values, with their runs."""
        return [
            (run, record)
            for run in self.runs
            if run.allocator == allocator
            for record in run.records
            if all(getattr(record, name) == value for name, value in wanted.items())
        ]


def result_of(fields: Mapping[str, Any]) -> Result:
    """A result from JSON."""
    timing = fields.get("timing")
    return Result(**{**fields, "timing": timing and Timing(**timing), "errors": tuple(fields.get("errors", ()))})


def record_of(fields: Mapping[str, Any]) -> Record:
    """A record from JSON."""
    return Record(**{**fields, "results": tuple(map(result_of, fields["results"]))})


def _run_of(fields: Mapping[str, Any]) -> Run:
    return Run(fields["facts"], dict(fields["ceilings"]), [record_of(record) for record in fields["records"]])


def _as_json(run: Run) -> dict[str, Any]:
    return {"facts": run.facts, "ceilings": run.ceilings, "records": [_lean(record) for record in run.records]}


def _lean(record: Record) -> dict[str, Any]:
    """Without what says nothing."""

    def known(fields: Mapping[str, Any], kept: Sequence[str]) -> dict[str, Any]:
        return {name: value for name, value in fields.items() if name in kept or value not in (None, (), [])}

    fields = known(asdict(record), kept=("results",))
    return {**fields, "results": [known(result, kept=("way", "timing")) for result in fields["results"]]}
