"""Memory at the peak of a step, each in a process of its own."""

from dataclasses import asdict, replace

from benchmarks.memory import FORWARD, TRAINING, WINDOWS, Step, core_shape, peak_of
from benchmarks.report import Section
from benchmarks.scope import Scope
from benchmarks.shapes import (
    MVIT_V1_B,
    MVIT_V2_S,
    SWIN3D_T,
    TIMESFORMER_BASE,
    TIMESFORMER_L,
    UNIFORMER_S,
    UNIFORMER_V2_B16,
    ModelShape,
)

ALLOCATORS = ("default",)

_MIB = 2**20


def run(scope: Scope) -> list[Section]:
    """Steps of models, and the core of window attention against its tokens."""
    return [_models(scope)] if scope.quick else [_models(scope), _core(scope)]


def _models(scope: Scope) -> Section:
    rows, data = [], []
    for name, step in _steps(scope):
        peaks = {way: peak_of(replace(step, way=way)) for way in ("eager", "vtfast")}
        beyond = [peak.beyond for peak in peaks.values()]
        in_all = [peak.in_all for peak in peaks.values()]
        rows.append([name, *(f"{peak / _MIB:.0f}" for peak in (*beyond, *in_all)), f"{beyond[1] / beyond[0]:.2f}"])
        data.append({"step": name, **{way: asdict(peak) for way, peak in peaks.items()}})
    notes = (
        "Resident memory at the peak, float32: beyond weights and clip (in training with the gradients), and of the "
        "process in all. eager is the upstream's model. Checkpointing recomputes each block in the backward."
    )
    columns = ["", "eager, MiB", "vtfast, MiB", "eager in all, MiB", "vtfast in all, MiB", "vtfast / eager"]
    return Section("Peak memory of models", notes, columns, rows, data)


def _steps(scope: Scope) -> list[tuple[str, Step]]:
    """Name and step; its way is filled in later."""

    def step(shape: ModelShape, work: str, checkpointing: bool = False) -> tuple[str, Step]:
        name = f"{shape.name}, {work}{', checkpointing' if checkpointing else ''}"
        return name, Step("", scope.threads, work, shape.model, shape.clip, checkpointing=checkpointing)

    if scope.quick:
        return [step(SWIN3D_T, TRAINING)]
    return [
        step(SWIN3D_T, TRAINING),
        step(MVIT_V2_S, TRAINING),
        step(MVIT_V1_B, TRAINING),
        step(UNIFORMER_S, FORWARD),
        step(UNIFORMER_S, TRAINING),
        step(UNIFORMER_V2_B16, FORWARD),
        step(TIMESFORMER_BASE, TRAINING),
        step(TIMESFORMER_L, FORWARD),
        step(TIMESFORMER_L, TRAINING, checkpointing=True),
    ]


def _core(scope: Scope) -> Section:
    rows, data = [], []
    for dtype, size in (("float32", 4), ("bfloat16", 2)):
        for way, batch in (("eager", 1), ("vtfast", 1), ("vtfast", 4), ("vtfast", 16)):
            peak = peak_of(Step(way, scope.threads, WINDOWS, batch=batch, dtype=dtype)).beyond
            shape = core_shape(batch)
            qkv = 3 * shape.channels * shape.num_tokens * size
            cells = [str(shape.num_tokens), f"{peak / _MIB:.1f}", f"{peak / shape.num_tokens:.0f}", f"{peak / qkv:.2f}"]
            rows.append([f"{way}, {dtype}", *cells])
            data.append({"way": way, "dtype": dtype, "tokens": shape.num_tokens, "peak": peak, "qkv": qkv})
    notes = (
        "Forward + backward of the window attention core at stage 1, shifted, for 1, 4 and 16 clips, beyond its "
        "inputs. Output and gradient of qkv, which any implementation returns, are 1.33 times qkv."
    )
    columns = ["", "tokens", "MiB", "bytes a token", "times qkv"]
    return Section("Memory of the core against tokens", notes, columns, rows, data)
