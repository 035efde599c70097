"""Memory at the peak of a step, beyond weights and inputs, each in a process of its own."""

from benchmarks.memory import Step, core_shape, peak_of
from benchmarks.report import Section
from benchmarks.scope import Scope
from benchmarks.shapes import SWIN3D_T

ALLOCATORS = ("default",)

_MIB = 2**20


def run(scope: Scope) -> list[Section]:
    """The training step of the model, and the core against its tokens."""
    return [_training_step(scope)] if scope.quick else [_training_step(scope), _core(scope)]


def _training_step(scope: Scope) -> Section:
    peaks = {
        way: peak_of(Step(way, scope.threads, model=SWIN3D_T.model, clip=SWIN3D_T.clip)) for way in ("eager", "vtfast")
    }
    row = [
        f"{SWIN3D_T.name}, float32",
        *(f"{peak / _MIB:.0f}" for peak in peaks.values()),
        f"{peaks['vtfast'] / peaks['eager']:.2f}",
    ]
    notes = "Resident memory at the peak of forward + backward, beyond weights and clip; gradients included."
    return Section(
        "Peak memory of a training step", notes, ["", "eager, MiB", "vtfast, MiB", "vtfast / eager"], [row], [peaks]
    )


def _core(scope: Scope) -> Section:
    rows, data = [], []
    for dtype, size in (("float32", 4), ("bfloat16", 2)):
        for way, batch in (("eager", 1), ("vtfast", 1), ("vtfast", 4), ("vtfast", 16)):
            peak = peak_of(Step(way, scope.threads, batch=batch, dtype=dtype))
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
