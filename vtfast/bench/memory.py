"""Peak memory of one step in a process of its own, so that nothing earlier hides what it needs."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from benchmarks.mvit_upstream import TORCHVISION_MVIT
from benchmarks.peers import core_ways
from benchmarks.shapes import SWIN3D_T_STAGES, ModelShape, SpaceTimeShape, WindowShape
from benchmarks.space_time_peers import space_time_ways
from benchmarks.timesformer_upstream import LUCIDRAINS, best_upstream
from benchmarks.uniformer_peers import UNIFORMER
from benchmarks.uniformer_v2_upstream import MMACTION2_UNIFORMER_V2
from benchmarks.upstream import TORCHVISION, Upstream, clip_of, forward_way, training_way
from vtfast.cli.memory import peak_memory

FORWARD, TRAINING, WINDOWS, SPACE_TIME = "forward", "training step", "window core", "space-time core"

_SMALL_CLIP = (1, 3, 4, 64, 64)


@dataclass(frozen=True)
class Step:
    """What to measure.

    Args:
        way: "eager" or "vtfast", of the space-time core also "SDPA".
        threads: of the process.
        work: `FORWARD` or `TRAINING` of a model, `WINDOWS` (forward + backward of the core of window attention), or
            `SPACE_TIME` (forward of the cores of one TimeSformer block).
        model: the model's name.
        clip: the model's clip.
        config: the model's options, as in `ModelShape`.
        checkpointing: whether the model recomputes its blocks in the backward.
        batch: clips of the window core, at the size of swin3d_t's shifted stage 1.
        dtype: name of a torch dtype, of the window core.
        schemes: of the space-time cores, one after the other.
        grid: of the space-time cores.
    """

    way: str
    threads: int
    work: str = TRAINING
    model: str = ""
    clip: tuple[int, int, int, int, int] = (1, 3, 16, 224, 224)
    config: Mapping[str, Any] = field(default_factory=dict)
    checkpointing: bool = False
    batch: int = 1
    dtype: str = "float32"
    schemes: Sequence[str] = ()
    grid: tuple[int, int, int] = (8, 14, 14)


@dataclass(frozen=True)
class Peak:
    """Bytes of resident memory at the peak.

    Args:
        beyond: weights and inputs, results and gradients included.
        in_all: of the process, with weights, interpreter and libraries.
    """

    beyond: int
    in_all: int


def peak_of(step: Step) -> Peak:
    """As measured by a fresh process.

    Raises:
        RuntimeError: the system cannot tell (only Linux can), or the process failed.
    """
    command = [sys.executable, "-m", "benchmarks.memory", json.dumps(asdict(step))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"peak memory of {step} could not be measured:\n{done.stderr}")
    return Peak(**json.loads(done.stdout))


def core_shape(batch: int) -> WindowShape:
    """Stage 1 of swin3d_t, shifted, for `batch` clips."""
    stage = SWIN3D_T_STAGES[0].shifted()
    return WindowShape(stage.name, stage.grid, stage.num_heads, shift=stage.shift, batch=batch)


def _measure(step: Step) -> Peak:
    torch.set_num_threads(step.threads)
    # Something small first: it loads libraries and starts threads, which are not the step's.
    small, work = {WINDOWS: _window_work, SPACE_TIME: _space_time_work}.get(step.work, _model_work)(step)
    small()
    del small
    beyond = peak_memory(work, torch.device("cpu"))
    if beyond is None:
        raise RuntimeError("the system does not tell the peak of resident memory")
    return Peak(beyond, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


Work = Callable[[], object]


def _window_work(step: Step) -> tuple[Work, Work]:
    def work(shape: WindowShape) -> Work:
        return core_ways(shape, getattr(torch, step.dtype), "forward + backward", (step.way,))[0].run

    return work(WindowShape("warm-up", (8, 14, 14), 3, shift=(0, 3, 3))), work(core_shape(step.batch))


def _space_time_work(step: Step) -> tuple[Work, Work]:
    def work(grid: tuple[int, int, int]) -> Work:
        shapes = [SpaceTimeShape(scheme, grid) for scheme in step.schemes]
        runs = [space_time_ways(shape, torch.float32, "forward", (step.way,))[0].run for shape in shapes]
        return lambda: [run() for run in runs]

    return work((2, 4, 4)), work(step.grid)


def _model_work(step: Step) -> tuple[Work, Work]:
    def work(shape: ModelShape) -> Work:
        upstream = _upstream_of(step.model)
        model = upstream.make(shape) if step.way == "eager" else upstream.ours(shape)
        upstream.in_mode(model, training=step.work == TRAINING)
        if step.checkpointing:
            enable: Callable[[], None] = getattr(
                model, "set_grad_checkpointing" if step.way == "vtfast" else "gradient_checkpointing_enable"
            )
            enable()
        if step.work == FORWARD:
            return forward_way(step.way, model, clip_of(shape)).run
        return training_way(step.way, model, clip_of(shape), dict).run

    shape = ModelShape(step.model, step.clip, step.config)
    return work(replace(shape, clip=_SMALL_CLIP)), work(shape)


def _upstream_of(model: str) -> Upstream:
    if model == "timesformer_lucidrains":
        return LUCIDRAINS
    if model.startswith("mvit"):
        return TORCHVISION_MVIT
    if model.startswith("uniformer_v2"):
        return MMACTION2_UNIFORMER_V2
    if model.startswith("uniformer"):
        return UNIFORMER
    return best_upstream() if model.startswith("timesformer") else TORCHVISION


if __name__ == "__main__":
    print(json.dumps(asdict(_measure(Step(**json.loads(sys.argv[1]))))))
