"""Peak memory of one step in a process of its own, so that nothing earlier hides what it needs."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from benchmarks.peers import core_ways
from benchmarks.shapes import SWIN3D_T_STAGES, ModelShape, WindowShape
from benchmarks.upstream import clip_of, rename_gradients, torchvision_model, training_way, vtfast_model
from vtfast.cli.memory import peak_memory


@dataclass(frozen=True)
class Step:
    """What to measure.

    Args:
        way: "eager" or "vtfast".
        model: a model's name for a training step of it; None for forward + backward of the core.
        clip: the model's clip.
        batch: clips of the core, at the size of swin3d_t's shifted stage 1.
        dtype: name of a torch dtype, of the core.
        threads: of the process.
    """

    way: str
    threads: int
    model: str | None = None
    clip: tuple[int, int, int, int, int] = (1, 3, 16, 224, 224)
    batch: int = 1
    dtype: str = "float32"


def peak_of(step: Step) -> int:
    """Bytes at the peak beyond weights and inputs, gradients included, as measured by a fresh process.

    Raises:
        RuntimeError: the system cannot tell (only Linux can), or the process failed.
    """
    command = [sys.executable, "-m", "benchmarks.memory", json.dumps(asdict(step))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not done.stdout.strip().isdigit():
        raise RuntimeError(f"peak memory of {step} could not be measured:\n{done.stderr}")
    return int(done.stdout)


def core_shape(batch: int) -> WindowShape:
    """Stage 1 of swin3d_t, shifted, for `batch` clips."""
    stage = SWIN3D_T_STAGES[0].shifted()
    return WindowShape(stage.name, stage.grid, stage.num_heads, shift=stage.shift, batch=batch)


def _measure(step: Step) -> int | None:
    torch.set_num_threads(step.threads)
    if step.model is None:
        dtype = getattr(torch, step.dtype)
        small = WindowShape("warm-up", (8, 14, 14), 3, shift=(0, 3, 3))
        _core_step(step.way, small, dtype)()
        work = _core_step(step.way, core_shape(step.batch), dtype)
    else:
        # One small clip loads libraries and starts threads, which are not the step's.
        theirs = torchvision_model(step.model).train()
        ours = vtfast_model(step.model, theirs).train()
        model = theirs if step.way == "eager" else ours
        small_clip = clip_of(ModelShape(step.model, (1, 3, 4, 64, 64)))
        training_way(step.way, model, small_clip, rename_gradients(ours)).run()
        work = training_way(step.way, model, clip_of(ModelShape(step.model, step.clip)), rename_gradients(ours)).run
    return peak_memory(work, torch.device("cpu"))


def _core_step(way: str, shape: WindowShape, dtype: torch.dtype) -> Callable[[], object]:
    return core_ways(shape, dtype, "forward + backward", (way,))[0].run


if __name__ == "__main__":
    print(_measure(Step(**json.loads(sys.argv[1]))))
