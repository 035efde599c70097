"""Time and memory against one axis: frames, size, batch, threads."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from vtfast.bench.request import Request
from vtfast.bench.selection import Selection
from vtfast.bench.shape_text import text_of
from vtfast.bench.shapes import ModelShape
from vtfast.bench.subjects import find_subjects, op_names, subject_named
from vtfast.bench.subjects.models import model_names
from vtfast.bench.subjects.subject import FORWARD, MODEL, Subject

FRAMES, SIZE, BATCH, THREADS = AXES = ("frames", "size", "batch", "threads")


@dataclass(frozen=True)
class Sweep:
    """One curve.

    Args:
        subject: the operation or the model.
        axis: one of `AXES`.
        values: where along it.
        ways: what is measured, where it is there.
    """

    subject: str
    axis: str
    values: Sequence[int]
    ways: tuple[str, ...] = ("eager", "SDPA", "vtfast")


# Clips of a model get longer and larger as far as eager's memory allows on a small machine.
SWEEPS = (
    Sweep("time_attention", FRAMES, (8, 16, 32, 64, 96)),
    Sweep("space_attention", FRAMES, (8, 16, 32, 64, 96)),
    Sweep("joint_attention", FRAMES, (4, 8, 16, 32)),
    Sweep("swin3d_t", FRAMES, (8, 16, 32, 64), ("eager", "vtfast")),
    Sweep("timesformer_base", FRAMES, (4, 8, 16, 32), ("eager", "vtfast")),
    Sweep("swin3d_t", SIZE, (112, 224, 336, 448), ("eager", "vtfast")),
    Sweep("uniformer_s", SIZE, (112, 224, 336), ("eager", "vtfast")),
    Sweep("window_attention", BATCH, (1, 2, 4, 8)),
    Sweep("swin3d_t", BATCH, (1, 2, 4), ("eager", "vtfast")),
    Sweep("window_attention", THREADS, ()),
    Sweep("depthwise_conv3d", THREADS, (), ("channels_last_3d", "vtfast")),
    Sweep("swin3d_t", THREADS, (), ("eager", "vtfast")),
)


def sweep_requests(
    selection: Selection, axes: Sequence[str], ops: Sequence[str], models: Sequence[str]
) -> Iterator[Request]:
    """The points of all curves along `axes`, in the forward and in float32 unless the selection says otherwise.

    Args:
        selection: dtypes, modes, device and threads; of a single size, if there is one, the points are variations.
        axes: of `AXES`.
        ops: patterns of operations; with `models` empty too, all of `SWEEPS`.
        models: patterns of models.

    Raises:
        ValueError: a pattern matches nothing.
    """
    for sweep in _sweeps(axes, ops, models):
        subject = subject_named(sweep.subject)
        for value in sweep.values or _thread_counts(selection.threads):
            yield from _point(selection, subject, sweep, value)


def _sweeps(axes: Sequence[str], ops: Sequence[str], models: Sequence[str]) -> list[Sweep]:
    wanted = find_subjects(ops, op_names(), "--op") + find_subjects(models, model_names(), "--model")
    names = [subject.name for subject in wanted]
    if not names:
        return [sweep for sweep in SWEEPS if sweep.axis in axes]
    known = {(sweep.subject, sweep.axis): sweep for sweep in SWEEPS}
    by_rule = {FRAMES: (8, 16, 32), SIZE: (112, 224, 336), BATCH: (1, 2, 4), THREADS: ()}
    return [
        known.get((name, axis), Sweep(name, axis, by_rule[axis]))
        for name in names
        for axis in axes
        if axis != SIZE or subject_named(name).kind == MODEL
    ]


def _point(selection: Selection, subject: Subject, sweep: Sweep, value: int) -> Iterator[Request]:
    shape = _at(next(iter(subject.sizes.values())), sweep.axis, value)
    one = replace(
        selection,
        shapes=[text_of(shape)],
        dtypes=selection.dtypes or ["float32"],
        modes=selection.modes or [FORWARD],
        peers=selection.peers if selection.peers is not None else sweep.ways,
        threads=value if sweep.axis == THREADS else selection.threads,
        memory=selection.memory or sweep.axis != THREADS,
    )
    for request in one.requests(subject):
        yield replace(request, name=f"{value} {sweep.axis}", sweep=sweep.axis, at=value)


def _at(shape: Any, axis: str, value: int) -> Any:
    """The size, with another value along an axis."""
    if axis == THREADS:
        return shape
    if isinstance(shape, ModelShape):
        batch, channels, frames, height, width = shape.clip
        clips = {
            FRAMES: (batch, channels, value, height, width),
            SIZE: (batch, channels, frames, value, value),
            BATCH: (value, channels, frames, height, width),
        }
        return replace(shape, clip=clips[axis])
    if axis == BATCH:
        return replace(shape, batch=value)
    return replace(shape, grid=(value, *shape.grid[1:]))


def _thread_counts(most: int) -> list[int]:
    """Powers of two, and all."""
    most = max(most, torch.get_num_threads(), 1)
    return sorted({*(1 << i for i in range(most.bit_length()) if 1 << i <= most), min(most, os.cpu_count() or most)})
