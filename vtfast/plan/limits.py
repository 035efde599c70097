"""The largest clip that fits in a machine's memory."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from vtfast.plan.machines import Machine
from vtfast.plan.trace import Clip, Work, trace

__all__ = ["Limits", "largest_clips"]

# Steps of the search, as patches and strides of the models go, and where it ends.
_FRAMES_STEP, _SIZE_STEP = 2, 32
_MOST_FRAMES, _MOST_PIXELS, _MOST_CLIPS = 4096, 4096, 65536


@dataclass(frozen=True)
class Limits:
    """How far each axis of a clip can go while the others stay, found to 1.5 %; 0 where not even the least fits.

    Args:
        frames: at this batch and size, a multiple of 2.
        batch: clips at these frames and this size.
        size: height and width at this batch and these frames, a multiple of 32.
        bounded: axes on which the model, or the search, ended before the memory.
    """

    frames: int
    batch: int
    size: int
    bounded: tuple[str, ...] = ()


def largest_clips(work: Work, machine: Machine) -> Limits:
    """The largest that fits along each axis, to the model's or the search's end.

    Raises:
        ValueError: the model refuses the clip as it is.
    """
    batch, channels, frames, height, width = work.clip
    trace(work)

    def along(of: Callable[[int], Clip], start: int, step: int, most: int, power: int) -> tuple[int, bool]:
        def held(value: int) -> float | None:
            return _held(replace(work, clip=of(value)), machine)

        return _largest(held, machine.memory, start, step, most, power)

    most_frames, frames_end = along(
        lambda n: (batch, channels, n, height, width), frames, _FRAMES_STEP, _MOST_FRAMES, 1
    )
    most_clips, clips_end = _largest_batch(work, machine)
    largest_size, size_ends = along(lambda n: (batch, channels, frames, n, n), height, _SIZE_STEP, _MOST_PIXELS, 2)
    ends = {"frames": frames_end, "batch": clips_end, "size": size_ends}
    return Limits(most_frames, most_clips, largest_size, tuple(axis for axis, ended in ends.items() if ended))


def _largest_batch(work: Work, machine: Machine) -> tuple[int, bool]:
    """Every clip takes as much as another."""
    one, two = (machine.held(trace(replace(work, clip=(n, *work.clip[1:]))).peak.total) for n in (1, 2))
    fits = max(0, 1 + math.floor((machine.memory - one) / (two - one)))
    return min(fits, _MOST_CLIPS), fits >= _MOST_CLIPS


def _held(work: Work, machine: Machine) -> float | None:
    """Bytes in use; None if the model refuses the clip."""
    try:
        return machine.held(trace(work).peak.total)
    except ValueError:
        return None


def _largest(
    held: Callable[[int], float | None], memory: float, start: int, step: int, most: int, power: int
) -> tuple[int, bool]:
    """The largest multiple of `step` that fits, to 1.5 %, and whether the search ended for something else than memory.

    Memory is close to a line over the `power` of the axis; each look takes place where that line reaches the limit.
    """
    fits, too_much, refused = 0, most // step + 1, True
    known: list[tuple[int, float]] = []
    value = max(start // step, 1)
    while fits + _near(fits) < too_much:
        bytes_held = held(value * step)
        if bytes_held is not None:
            known.append((value, bytes_held))
        if bytes_held is not None and bytes_held <= memory:
            fits = value
        else:
            too_much, refused = value, bytes_held is None
        value = max(fits + _near(fits), min(_crossing(known, memory, power), too_much - 1))
    return fits * step, refused


def _near(value: int) -> int:
    return max(1, value // 64)


def _crossing(known: list[tuple[int, float]], memory: float, power: int) -> int:
    """Where the line through the two points next to `memory` reaches it; a neighbour of a single point."""
    points = sorted(known, key=lambda point: abs(point[1] - memory))[:2]
    if len(points) < 2 or points[0][1] == points[1][1]:
        value, bytes_held = points[0] if points else (2, memory)
        return 2 * value if bytes_held <= memory else value // 2
    (x0, y0), (x1, y1) = ((value**power, bytes_held) for value, bytes_held in points)
    return math.floor(max(x0 + (memory - y0) * (x1 - x0) / (y1 - y0), 0.0) ** (1 / power))
