"""What the measured cases come to: rates, shares of the ceilings, ratios to peers, targets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.gpu import depthwise, models, pooling, space_time
from benchmarks.gpu.attention import BOTH, FORWARD, case_name
from benchmarks.gpu.ceilings import COPY, EXP
from vtfast.bench.measure import Result
from vtfast.bench.peers.depthwise import INPUT_GRADIENT, VOLUME, WEIGHT_GRADIENT
from vtfast.bench.peers.grid_attention import SDPA_BACKENDS
from vtfast.bench.peers.pooling import POOLING
from vtfast.bench.results import JUDGED, fastest, limit, rates_of, result_of, speedup
from vtfast.bench.shapes import (
    FILLING_BLOCK,
    FILLING_HR,
    FILLING_POOLING,
    FILLING_SPACE,
    FILLING_TIME,
    FILLING_WINDOWS,
    PoolingShape,
    SpaceTimeShape,
    WindowShape,
)

Ceilings = Mapping[str, float]  # units a second by name


@dataclass(frozen=True)
class Figures:
    """A case's.

    Args:
        case: its name.
        facts: what else describes it.
        results: of every way.
        note: why there are none.
        flops: of the matrix products.
        fewest_bytes: that any implementation has to move.
        ceilings: of the device.
    """

    case: str
    facts: Mapping[str, Any]
    results: Sequence[Result]
    note: str
    flops: int | None
    fewest_bytes: int | None
    ceilings: Ceilings

    @staticmethod
    def of(record: Mapping[str, Any], ceilings: Ceilings) -> "Figures":
        """From a record of a job."""
        results = [result_of(fields) for fields in record.get("results", [])]
        state = {"done": "", "started": "did not end in time"}.get(record["state"], record["state"])
        note = ": ".join(filter(None, (state, record.get("note"))))
        flops, fewest_bytes = record.get("flops"), record.get("fewest_bytes")
        return Figures(record["case"], record.get("facts", {}), results, note, flops, fewest_bytes, ceilings)

    @property
    def judged(self) -> Result | None:
        """What vtfast came to."""
        return self.result(JUDGED)

    @property
    def seconds(self) -> float | None:
        """Of vtfast, if its result is right."""
        judged = self.judged
        return judged.timing.median if judged and judged.timing and judged.agrees else None

    def result(self, way: str) -> Result | None:
        """What a way came to."""
        return next((result for result in self.results if result.way == way), None)

    def over(self, way: str) -> float | None:
        """How many times faster than a way vtfast is, compiled or not; None unless both are right."""
        ratios = [speedup(result, self.result(way)) for result in self.results if result.way.startswith(JUDGED)]
        return max((ratio for ratio in ratios if ratio is not None), default=None)

    def best_peer(self) -> str | None:
        """The fastest whose result is right."""
        best = fastest(self.results)
        return None if best is None else best.way

    def bytes_per_second(self) -> float | None:
        """Of the fewest bytes."""
        return self.fewest_bytes / self.seconds if self.fewest_bytes and self.seconds else None

    def flops_per_second(self, way: str = JUDGED) -> float | None:
        """Of the matrix products."""
        result = self.result(way)
        if not self.flops or result is None or result.timing is None or not result.agrees:
            return None
        return self.flops / result.timing.median

    def share_of_copy(self) -> float | None:
        """In percent."""
        rate, ceiling = self.bytes_per_second(), self.ceilings.get(COPY)
        return 100 * rate / ceiling if rate and ceiling else None

    def limit(self) -> tuple[str, float] | None:
        """Which ceiling no implementation gets past here, and the seconds that it takes alone."""
        gemm = f"GEMM {self.facts.get('sums', self.facts.get('dtype'))}"
        return limit(self.ceilings, {COPY: self.fewest_bytes, gemm: self.flops, EXP: self.facts.get("exps")})

    def extra_mib(self, way: str = JUDGED) -> float | None:
        """Memory at the peak beyond inputs and results."""
        result = self.result(way)
        return None if result is None or result.extra_bytes is None else result.extra_bytes / 2**20


def ceilings_of(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Units a second of every ceiling that was measured."""
    return rates_of(result_of(fields) for record in records for fields in record.get("results", []))


@dataclass(frozen=True)
class Target:
    """What a case is to reach.

    Args:
        case: its name.
        unit: of the number.
        wanted: at least; None where the number has no limit of its own, and is only to be looked at.
        got: the number of a case.
    """

    case: str
    unit: str
    wanted: float | None
    got: Callable[[Figures], float | None]


def over_best_peer(figures: Figures) -> float | None:
    """How many times faster than the fastest peer."""
    peer = figures.best_peer()
    return None if peer is None else figures.over(peer)


def over_sdpa(figures: Figures) -> float | None:
    """How many times faster than the fastest of its backends."""
    ratios = [figures.over(way) for way in SDPA_BACKENDS]
    return min((ratio for ratio in ratios if ratio is not None), default=None)


def memory_under_sdpa(figures: Figures) -> float | None:
    """How many times less extra memory than the leanest of its backends takes."""
    theirs = [figures.extra_mib(way) for way in SDPA_BACKENDS if figures.over(way) is not None]
    known, ours = [extra for extra in theirs if extra is not None], figures.extra_mib()
    return min(known) / ours if known and ours else None


def teraflops(figures: Figures) -> float | None:
    """10^12 floating point operations a second."""
    rate = figures.flops_per_second()
    return None if rate is None else rate / 1e12


def extra_tables(figures: Figures) -> float | None:
    """Memory beyond inputs, results and a logarithm for each query and head, in tables: does not grow with clips."""
    extra, table = figures.extra_mib(), figures.facts["table_bytes"]
    return None if extra is None else max(0.0, extra * 2**20 - figures.facts["lse_bytes"]) / table


def targets() -> list[Target]:
    """For an H200, bfloat16."""
    short, pair, long = FILLING_WINDOWS
    wanted = []
    for shape in (variant for base in (short, pair) for variant in (base, base.shifted())):
        wanted.append(Target(_half(shape, FORWARD), "% of copy", 70, Figures.share_of_copy))
        wanted.append(Target(_half(shape, BOTH), "x best peer", 5, over_best_peer))
    for shape in (long, long.shifted()):
        for mode, rate in ((FORWARD, 200), (BOTH, 100)):
            wanted.append(Target(_half(shape, mode), "TFLOP/s", rate, teraflops))
            wanted.append(Target(_half(shape, mode), "x best peer", 2.5, over_best_peer))
    times, spaces = (*FILLING_TIME, FILLING_HR[0]), (FILLING_SPACE, FILLING_HR[1])
    wanted += [Target(_half(shape, FORWARD), "% of copy", 75, Figures.share_of_copy) for shape in times]
    wanted += [
        Target(_half(shape, mode), f"x {space_time.FLASH}", 1, lambda figures: figures.over(space_time.FLASH))
        for shape in spaces
        for mode in (FORWARD, BOTH)
    ]
    for block in FILLING_POOLING:
        wanted += [Target(_half(block, mode), "x SDPA with its bias", 3, over_sdpa) for mode in (FORWARD, BOTH)]
    for block in FILLING_POOLING[:2]:
        pooled = pooling.token_case_name(block, POOLING, torch.bfloat16, FORWARD)
        wanted.append(Target(pooled, "% of copy", 77, Figures.share_of_copy))
        wanted.append(Target(pooled, "x eager", 5, lambda figures: figures.over("eager")))
    for mode in (FORWARD, INPUT_GRADIENT):
        convolved = depthwise.case_name(FILLING_BLOCK, VOLUME, torch.bfloat16, mode)
        wanted.append(Target(convolved, "% of copy", 70, Figures.share_of_copy))
    weights = depthwise.case_name(FILLING_BLOCK, VOLUME, torch.bfloat16, WEIGHT_GRADIENT)
    wanted.append(Target(weights, "x best peer", 5, over_best_peer))
    wanted.append(Target(_half(FILLING_POOLING[0], BOTH), "x less extra memory than SDPA", 5, memory_under_sdpa))
    wanted += [
        Target(_half(shape.shifted(), BOTH), "tables of extra memory", None, extra_tables) for shape in FILLING_WINDOWS
    ]
    training, forward, *_ = (job.case.name for job in models.jobs("cuda", quick=False))
    wanted.append(Target(training, "x compile", 1.8, lambda figures: figures.over("compile")))
    wanted.append(Target(forward, "x eager", 2.5, lambda figures: figures.over("eager")))
    return wanted


_NAMES: Mapping[type, Callable[..., str]] = {
    WindowShape: case_name,
    SpaceTimeShape: space_time.case_name,
    PoolingShape: pooling.case_name,
}


def _half(shape: WindowShape | SpaceTimeShape | PoolingShape, mode: str) -> str:
    return _NAMES[type(shape)](shape, torch.bfloat16, mode)
