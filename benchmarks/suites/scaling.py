"""How the time of the core grows with the number of windows and falls with threads."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks import ceilings
from benchmarks.measure import Case, Outputs, Result, Way, run_case
from benchmarks.peers import CoreInputs, reference_outputs, vtfast_way
from benchmarks.report import Section, milliseconds, speedup
from benchmarks.scope import Scope
from benchmarks.shapes import SWIN3D_T, SWIN3D_T_STAGES, WindowShape
from benchmarks.suites.grid_attention import DTYPES, TOLERANCES
from benchmarks.upstream import TORCHVISION, clip_of, forward_way

ALLOCATORS = ("default",)
QUICK = False

_WINDOWS_PER_CLIP = (4, 16, 64, 256)


def run(scope: Scope) -> list[Section]:
    """Time against windows, and one thread against all."""
    return [_windows(scope), _threads(scope)]


def _windows(scope: Scope) -> Section:
    """One case a dtype whose ways differ in size only, so that all sizes meet the same machine."""
    rows, data = [], []
    for dtype in DTYPES:
        shapes = [_square(count) for count in _WINDOWS_PER_CLIP]
        ways = [
            vtfast_way(CoreInputs.make(shape, dtype, requires_grad=True), "forward + backward", name=shape.name)
            for shape in shapes
        ]
        results = run_case(Case("windows", lambda ways=ways: ways), scope.core_effort)
        for shape, result in zip(shapes, results, strict=True):
            assert result.timing is not None
            median = result.timing.median
            name = str(dtype).removeprefix("torch.")
            rows.append([name, str(shape.num_groups), milliseconds(median), f"{median * 1e6 / shape.num_groups:.0f}"])
            data.append({"dtype": name, "windows": shape.num_groups, "seconds": median, "rounds": result.timing.rounds})
    notes = "vtfast's core, window (8,7,7), 3 heads of 32, shifted, forward + backward: the last column should be flat."
    return Section("Time against the number of windows", notes, ["", "windows", "ms", "us a window"], rows, data)


def _threads(scope: Scope) -> Section:
    rows, data = [], []
    for case in _thread_cases(scope):
        alone, together = run_case(case, scope.core_effort)
        ratio = _thread_speedup(alone, together)
        times = [result.timing.median for result in (alone, together) if result.timing is not None]
        rows.append([case.name, *map(milliseconds, times), "-" if ratio is None else f"{ratio:.2f}"])
        data.append({"case": case.name, "threads": [1, scope.threads], "seconds": times, "speedup": ratio})
    columns = ["", "1 thread, ms", f"{scope.threads} threads, ms", "x"]
    notes = "vtfast on one thread and on all of the process; the GEMM for comparison."
    return Section("Threads", notes, columns, rows, data)


def _thread_speedup(alone: Result, together: Result) -> float | None:
    if alone.agrees is None and alone.timing is not None and together.timing is not None:
        return alone.timing.median / together.timing.median
    return speedup(together, alone)


def _thread_cases(scope: Scope) -> Iterator[Case]:
    shape, counts = SWIN3D_T_STAGES[0].shifted(), (1, scope.threads)
    for dtype in DTYPES:
        name = str(dtype).removeprefix("torch.")
        yield Case(
            f"core, {name}, forward + backward",
            partial(_core_ways, shape, dtype, counts),
            partial(reference_outputs, shape, dtype, "forward + backward"),
            TOLERANCES[dtype],
        )
        yield Case(f"GEMM, {name}", partial(_gemm_ways, dtype, counts))
    yield Case(f"{SWIN3D_T.model}, forward, float32", partial(_model_ways, counts), _model_reference, 1e-4)


def _core_ways(shape: WindowShape, dtype: torch.dtype, counts: tuple[int, int]) -> list[Way]:
    inputs = CoreInputs.make(shape, dtype, requires_grad=True)
    return [vtfast_way(inputs, "forward + backward", f"{n} threads ({i})", n) for i, n in enumerate(counts)]


def _gemm_ways(dtype: torch.dtype, counts: tuple[int, int]) -> list[Way]:
    return [_named(ceilings.gemm(dtype, n), f"{n} threads ({i})") for i, n in enumerate(counts)]


def _model_ways(counts: tuple[int, int]) -> list[Way]:
    torch.manual_seed(0)
    model, clip = TORCHVISION.ours(SWIN3D_T).eval(), clip_of(SWIN3D_T)
    way = forward_way("", model, clip)
    return [Way(f"{n} threads ({i})", way.run, way.outputs, n) for i, n in enumerate(counts)]


def _model_reference() -> Outputs:
    torch.manual_seed(0)
    model = TORCHVISION.ours(SWIN3D_T).double().eval()
    way = forward_way("", model, clip_of(SWIN3D_T).double())
    assert way.outputs is not None
    return way.outputs(way.run())


def _named(way: Way, name: str) -> Way:
    return Way(name, way.run, way.outputs, way.threads, way.flops)


def _square(count: int) -> WindowShape:
    side = round(count**0.5)
    return WindowShape(f"{count} windows", (8, 7 * side, 7 * side), 3, shift=(0, 3, 3))
