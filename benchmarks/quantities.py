"""What may be shown about a record: times, speed-ups, shares and memory, and never of a result that differs."""

from benchmarks.figures import FigureError, Library, Quantity, Work, result_of, seconds_of
from vtfast.bench.measure import Result
from vtfast.bench.results import JUDGED, Record
from vtfast.bench.shape_text import parse_shape
from vtfast.bench.shapes import SWIN3D_T_STAGES
from vtfast.bench.table import milliseconds, ratio

_MIB = 2**20


def time(way: str = JUDGED) -> Quantity:
    """Milliseconds."""
    return Quantity(lambda library, work: (milliseconds(seconds_of(library, work, way)), " ms"), bold=way == JUDGED)


def over(way: str, allocator: str = "default") -> Quantity:
    """How many times faster than a way vtfast is."""

    def of(library: Library, work: Work) -> tuple[str, str]:
        record = library.find(work, allocator)[1]
        return _times(work, record, result_of(work, record, way)), " x"

    return Quantity(of)


def over_best() -> Quantity:
    """How many times faster than the fastest of the others."""

    def of(library: Library, work: Work) -> tuple[str, str]:
        record = library.find(work)[1]
        return _times(work, record, record.best_peer()), " x"

    return Quantity(of)


def share_of_limit() -> Quantity:
    """Percent of what the machine allows, with the ceiling that limits the work."""

    def of(library: Library, work: Work) -> tuple[str, str]:
        run, record = library.find(work)
        share = record.share_of_limit(run.ceilings)
        if share is None:
            raise FigureError(f"{work}: no ceiling was measured that limits it")
        return f"{100 * share[1]:.0f}", f" % ({share[0].split(' ')[0]})"

    return Quantity(of)


def memory(way: str = JUDGED) -> Quantity:
    """MiB at the peak beyond weights and inputs."""
    return Quantity(lambda library, work: (f"{_peak(library, work, way) / _MIB:.0f}", " MiB"), bold=way == JUDGED)


def memory_over_qkv(way: str = JUDGED) -> Quantity:
    """Memory at the peak, as a multiple of what packed qkv of window attention takes."""

    def of(library: Library, work: Work) -> tuple[str, str]:
        shape = parse_shape(work.shape, SWIN3D_T_STAGES[0])
        itemsize = {"float32": 4, "bfloat16": 2, "float16": 2}[work.dtype]
        return ratio(_peak(library, work, way) / (3 * shape.num_tokens * shape.channels * itemsize)), ""

    return Quantity(of)


def _peak(library: Library, work: Work, way: str) -> int:
    peak = result_of(work, library.find(work)[1], way).peak_bytes
    if peak is None:
        raise FigureError(f"{work}: no memory of {way} was measured")
    return peak


def _times(work: Work, record: Record, peer: Result | None) -> str:
    """A ratio of times, with its noise where it would decide who is faster."""
    value = None if peer is None else record.speedup(peer.way)
    if peer is None or value is None:
        raise FigureError(f"{work}: no speed-up over {peer.way if peer else 'others'}: both results must be right")
    spreads = [r.timing.spread for r in (record.judged, peer) if r is not None and r.timing is not None]
    noise = sum(spreads) / 2
    return f"{ratio(value)} ± {value * noise:.2f}" if abs(value - 1) <= noise else ratio(value)
