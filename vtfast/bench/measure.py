"""Timing of alternatives in interleaved rounds of one process, and whether their results agree."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend
from torch.overrides import TorchFunctionMode

Outputs = Sequence[Tensor]


class NotSupportedError(Exception):
    """An alternative cannot do this case; the message says why."""


@dataclass(frozen=True)
class Way:
    """One way of doing the work of a case.

    Args:
        name: column in the report.
        run: does the work once; its return value is only looked at outside the measured time.
        outputs: turns what `run` returns into the tensors to compare, in the order and layout of the reference; None
            for work that is a yardstick and computes something else (a GEMM, the linear layers alone).
        threads: threads it runs on, those of the process if None.
        flops: floating point operations of the work, for yardsticks.
    """

    name: str
    run: Callable[[], Any]
    outputs: Callable[[Any], Outputs] | None = None
    threads: int | None = None
    flops: int | None = None


@dataclass(frozen=True)
class Case:
    """A piece of work and the ways of doing it. The way named "vtfast" is the one that is judged.

    Args:
        name: row in the report.
        ways: makes the ways; called when the case runs, so that only one case at a time holds its tensors.
        reference: makes the outputs that count as right; None where there is nothing to compare.
        tolerance: largest difference to the reference, as a share of the reference's largest value; one number an
            output, or one for all.
        flops: floating point operations of the matrix products in the work, if that is worth a rate.
        fewest_bytes: what any implementation has to read and write of the device's memory.
        facts: what else describes the row.
    """

    name: str
    ways: Callable[[], Sequence[Way]]
    reference: Callable[[], Outputs] | None = None
    tolerance: float | Sequence[float] = 0.0
    flops: int | None = None
    fewest_bytes: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Timing:
    """Seconds of one way over the rounds.

    Args:
        median: of all rounds.
        low: lower quartile.
        high: upper quartile.
        rounds: how many.
    """

    median: float
    low: float
    high: float
    rounds: int

    @property
    def spread(self) -> float:
        """Distance of the quartiles, as a share of the median."""
        return (self.high - self.low) / self.median

    @staticmethod
    def of(seconds: Sequence[float]) -> "Timing":
        """The timing of at least one measured time."""
        several = [*seconds, *seconds] if len(seconds) == 1 else seconds
        low, median, high = statistics.quantiles(several, n=4, method="inclusive")
        return Timing(median, low, high, len(seconds))


@dataclass(frozen=True)
class Result:
    """What a way came to in a case.

    Args:
        way: its name.
        timing: None if it cannot do the case.
        errors: difference of each output to the reference, as a share of the reference's largest value; empty where
            nothing was compared.
        agrees: whether all of them are within the tolerance; None where nothing was compared.
        note: why it cannot do the case.
        flops: floating point operations of the way's own work, for yardsticks.
        extra_bytes: memory at the peak beyond inputs and results, where the meter can tell.
        peak_bytes: memory at the peak beyond weights and inputs, results included, where it was measured.
        sdpa: backends that `scaled_dot_product_attention` chose, if the way calls it.
    """

    way: str
    timing: Timing | None
    errors: tuple[float, ...] = ()
    agrees: bool | None = None
    note: str | None = None
    flops: int | None = None
    extra_bytes: int | None = None
    peak_bytes: int | None = None
    sdpa: str | None = None


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Args:
        seconds: of a case, over all its ways; warming up and the reference come on top.
        min_rounds: rounds even if they take longer.
        max_rounds: rounds at most.
    """

    seconds: float = 6.0
    min_rounds: int = 5
    max_rounds: int = 25


class Meter:
    """How a piece of work is measured: here by the wall clock, which is right where work is done when `run` returns."""

    def seconds(self, run: Callable[[], Any]) -> float:
        """Time that one run takes."""
        begin = time.perf_counter()
        kept = run()
        end = time.perf_counter()
        del kept  # what a way frees itself counts, its results do not
        return end - begin

    def extra_bytes(self, run: Callable[[], Any]) -> int | None:
        """Memory at the peak of a run beyond inputs and results; None where that takes a process of its own."""
        return None


def run_case(
    case: Case, effort: Effort, meter: Meter | None = None, look_at: Callable[[Way], None] | None = None
) -> list[Result]:
    """Runs every way once to compare its result, then all of them in rounds.

    A way that raises `NotSupportedError` gets no time; one whose result is wrong is timed, but marked. `look_at` is
    given each way that can do the case before the rounds.
    """
    torch.compiler.reset()  # each case compiles afresh: dynamo gives up on a function that it has seen in many sizes
    threads, meter = torch.get_num_threads(), meter or Meter()
    reference = case.reference() if case.reference is not None else None
    able: list[Way] = []
    checks: dict[str, Result] = {}
    for way in case.ways():
        try:
            _set_threads(way.threads or threads)
            returned, chosen = _first_run(way)
            checked = _check(way, returned, reference, case.tolerance)
            del returned
            extra = meter.extra_bytes(way.run)
            checks[way.name] = replace(checked, extra_bytes=extra, sdpa=chosen)
            if look_at is not None:
                look_at(way)
            able.append(way)
        except NotSupportedError as error:
            checks[way.name] = Result(way.name, None, note=str(error))
    reference = None
    times = interleave(able, effort, threads, meter)
    _set_threads(threads)
    return [
        replace(checked, timing=Timing.of(times[name])) if name in times else checked
        for name, checked in checks.items()
    ]


def _first_run(way: Way) -> tuple[Any, str | None]:
    """What it returns, and the backends of `scaled_dot_product_attention` that it takes, if it calls it."""
    if "SDPA" not in way.name or is_compiled(way.name):
        return way.run(), None
    with sdpa_choices() as chosen:
        returned = way.run()
    return returned, ", ".join(sorted(set(chosen))) or None


def is_compiled(way: str) -> bool:
    """Whether a way's first run compiles it, which takes a while."""
    return "compile" in way or "Flex" in way


@contextmanager
def sdpa_choices() -> Iterator[list[str]]:
    """Names of the backends that `scaled_dot_product_attention` takes within the context, as they come."""

    class Recorder(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func is F.scaled_dot_product_attention:
                chosen.append(SDPBackend(torch._fused_sdp_choice(*args, **kwargs)).name.lower())
            return func(*args, **kwargs)

    chosen: list[str] = []
    with Recorder():
        yield chosen


def interleave(ways: Sequence[Way], effort: Effort, threads: int, meter: Meter | None = None) -> dict[str, list[float]]:
    """Seconds of every way in every round.

    The ways take turns, so that a change of the machine's clock or load meets all of them; each round starts with
    another way, so that none always runs in the wake of the same neighbour. One round is thrown away first.
    """
    meter = meter or Meter()
    times: dict[str, list[float]] = {way.name: [] for way in ways}
    start = time.perf_counter()
    for number in range(-1, effort.max_rounds):
        if number >= effort.min_rounds and time.perf_counter() - start > effort.seconds:
            break
        for way in rotated(ways, max(number, 0)):
            _set_threads(way.threads or threads)
            seconds = meter.seconds(way.run)
            if number >= 0:
                times[way.name].append(seconds)
        if number < 0:
            start = time.perf_counter()
    return times


def rotated(items: Sequence[Any], by: int) -> list[Any]:
    """The items, starting at number `by`."""
    by %= max(len(items), 1)
    return [*items[by:], *items[:by]]


def relative_error(value: Tensor, reference: Tensor) -> float:
    """Largest difference as a share of the reference's largest value; NaN where shapes or finiteness differ."""
    value, reference = value.detach().double(), reference.detach().double()
    if value.shape != reference.shape or not value.isfinite().all():
        return math.nan
    if not value.numel():
        return 0.0
    difference, scale = float((value - reference).abs().max()), float(reference.abs().max())
    return difference / scale if scale else difference


def _check(way: Way, returned: Any, reference: Outputs | None, tolerance: float | Sequence[float]) -> Result:
    if way.outputs is None or reference is None:
        return Result(way.name, None, flops=way.flops)
    outputs = way.outputs(returned)
    errors = tuple(relative_error(value, right) for value, right in zip(outputs, reference, strict=True))
    allowed = [tolerance] * len(errors) if isinstance(tolerance, float) else tolerance
    # NaN compares as out of any tolerance.
    agrees = all(error <= limit for error, limit in zip(errors, allowed, strict=True))
    return Result(way.name, None, errors, agrees, flops=way.flops)


def _set_threads(threads: int) -> None:
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
