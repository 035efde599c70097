"""What more frames cost: divided against joint attention, time and memory, at 224 x 224."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import frames_picture
from benchmarks.measure import Case, Effort, Outputs, Result, Way, run_case
from benchmarks.memory import FORWARD, SPACE_TIME, Step, peak_of
from benchmarks.report import Section, cell
from benchmarks.scope import Scope
from benchmarks.shapes import TIMESFORMER_BASE, TIMESFORMER_GRIDS, ModelShape, SpaceTimeShape
from benchmarks.space_time_peers import sampled_rows, space_time_ways
from benchmarks.timesformer_upstream import PLAIN
from benchmarks.upstream import clip_of, forward_way

ALLOCATORS = ("default",)
QUICK = False

# What the model calls an attention type, and its schemes.
TYPES = {"divided": ("time", "space"), "joint": ("joint",)}

_FRAMES = (8, 16, 32, 64, 96, 128)
_QUICK_FRAMES = (2, 4, 8)
_JOINT_MODEL_FRAMES = 64  # at most: beyond, a forward takes minutes
_SAMPLE = 32  # tokens whose results are compared: scores of all would not fit in memory
_TOLERANCE = 1e-5
_MIB = 2**20


def run(scope: Scope) -> list[Section]:
    """The attention of one block, and a whole forward."""
    return [_cores(scope), _models(scope)]


def draw(sections: Sequence[dict[str, Any]], path: Path) -> None:
    """The picture of what `run` found."""
    frames_picture.draw([section["data"] for section in sections], path)


def _frames(scope: Scope) -> tuple[int, ...]:
    return _QUICK_FRAMES if scope.quick else _FRAMES


def _cores(scope: Scope) -> Section:
    rows, data = [], []
    for frames in _frames(scope):
        grid = (frames, *TIMESFORMER_GRIDS[0][1:])
        for kind, schemes in TYPES.items():
            shapes = [SpaceTimeShape(scheme, grid) for scheme in schemes]
            case = Case(f"{kind}, {frames}", partial(_ways, shapes), partial(_rows, shapes), _TOLERANCE)
            effort = Effort(seconds=scope.core_effort.seconds, min_rounds=2, max_rounds=9)
            for result in run_case(case, effort):
                step = Step(result.way, scope.threads, SPACE_TIME, schemes=schemes, grid=grid)
                rows.append(_row(kind, frames, result, step, data))
    notes = (
        "The attention of one block of timesformer_base in the forward, one clip, float32, from packed qkv: over time "
        "and inside frames (divided), or over the clip (joint). SDPA with the copies of the published block. "
        f"{_SAMPLE} tokens are compared with the reference. MiB at the peak beyond qkv, results included. "
        f"Fitted to all rows: {_fits(data)}."
    )
    return Section("Attention of a block against frames", notes, ["", "frames", "", "ms", "MiB"], rows, data)


def _models(scope: Scope) -> Section:
    rows, data = [], []
    for frames in _frames(scope):
        for kind in TYPES if frames <= _JOINT_MODEL_FRAMES else ("divided",):
            clip = (1, 3, frames, *TIMESFORMER_BASE.clip[3:])
            shape = ModelShape(TIMESFORMER_BASE.model, clip, {"attention_type": kind})
            effort = Effort(seconds=scope.core_effort.seconds, min_rounds=2, max_rounds=5)
            (result,) = run_case(Case(f"{kind}, {frames}", partial(_model_ways, shape)), effort)
            step = Step(result.way, scope.threads, FORWARD, shape.model, clip, shape.config)
            rows.append(_row(kind, frames, result, step, data))
    notes = (
        "timesformer_base from clip to logits, float32, with divided and with joint attention. MiB at the peak beyond "
        f"weights and clip. Fitted to all rows: {_fits(data)}."
    )
    return Section("timesformer_base against frames", notes, ["", "frames", "", "ms", "MiB"], rows, data)


def _row(kind: str, frames: int, result: Result, step: Step, data: list[dict[str, Any]]) -> list[str]:
    peak = peak_of(step).beyond
    data.append({"kind": kind, "frames": frames, "peak": peak, **asdict(result)})
    return [kind, str(frames), result.way, cell(result), f"{peak / _MIB:.0f}"]


def _ways(shapes: Sequence[SpaceTimeShape]) -> list[Way]:
    """Each scheme after the other as one way."""
    ways = []
    for name in ("SDPA", "vtfast"):
        parts = [space_time_ways(shape, torch.float32, "forward", (name,))[0] for shape in shapes]
        ways.append(Way(name, partial(_run_all, parts), partial(_sampled_outputs, parts, shapes)))
    return ways


def _run_all(parts: Sequence[Way]) -> list[Any]:
    return [part.run() for part in parts]


def _sampled_outputs(parts: Sequence[Way], shapes: Sequence[SpaceTimeShape], returned: Sequence[Any]) -> Outputs:
    picked = []
    for part, shape, result in zip(parts, shapes, returned, strict=True):
        assert part.outputs is not None
        picked.append(part.outputs(result)[0][:, _sample(shape)])
    return picked


def _rows(shapes: Sequence[SpaceTimeShape]) -> Outputs:
    return [sampled_rows(shape, torch.float32, _sample(shape)) for shape in shapes]


def _sample(shape: SpaceTimeShape) -> list[int]:
    """Rows of the output, the first and the last among them."""
    last = math.prod(shape.grid) - (not shape.has_cls)
    return sorted({round(i * last / (_SAMPLE - 1)) for i in range(_SAMPLE)})


def _model_ways(shape: ModelShape) -> list[Way]:
    torch.manual_seed(0)
    return [forward_way("vtfast", PLAIN.ours(shape).eval(), clip_of(shape))]


def _fits(data: Sequence[dict[str, Any]]) -> str:
    return "; ".join(
        f"{label} as frames^{exponent:.2f}, memory as frames^{memory:.2f}"
        for label, exponent, memory in _exponents(data)
    )


def _exponents(data: Sequence[dict[str, Any]]) -> Iterator[tuple[str, float, float]]:
    for label, entries in frames_picture.curves(data).items():
        frames = [entry["frames"] for entry in entries]
        yield (
            label,
            frames_picture.exponent(frames, [entry["timing"]["median"] for entry in entries]),
            frames_picture.exponent(frames, [entry["peak"] for entry in entries]),
        )
