"""A forward and backward of vtfast's attention, of MViT with its pooling, or depthwise convolution, for a profiler.

`python -m benchmarks.gpu.profile_target NUMBER DEVICE [OUTPUT]`; with OUTPUT, torch's own profiler looks, and its times
a kernel are written there as JSON.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.gpu.jobs import natively
from vtfast.bench.measure import Way
from vtfast.bench.peers.depthwise import VOLUME, depthwise_ways
from vtfast.bench.peers.grid_attention import core_ways
from vtfast.bench.peers.pooling import ATTENTION, pooling_ways
from vtfast.bench.peers.space_time import space_time_ways
from vtfast.bench.shapes import (
    FILLING_BLOCK,
    FILLING_LARGE,
    FILLING_POOLING,
    FILLING_SPACE,
    FILLING_TIME,
    FILLING_WINDOWS,
    ConvolutionShape,
    PoolingShape,
    SpaceTimeShape,
    WindowShape,
)

Shape = WindowShape | SpaceTimeShape | PoolingShape | ConvolutionShape

SHAPES: Sequence[Shape] = (
    *(shape.shifted() for shape in FILLING_WINDOWS[1:]),
    FILLING_TIME[0],
    FILLING_SPACE,
    *FILLING_POOLING[:2],
    FILLING_BLOCK,
    FILLING_LARGE,
)
_SMALL = WindowShape("window 2 x 7 x 7", (2, 14, 14), 2, (2, 7, 7)).shifted()


def main(number: int, device: str, output: Path | None) -> None:
    """Runs it, twice with a profiler that would otherwise see what happens only once."""
    shape = SHAPES[number] if device == "cuda" else _SMALL
    way = _way(shape, device)
    if output is None:
        way.run()
        if device == "cuda":
            torch.cuda.synchronize()
        return
    way.run()
    with torch.profiler.profile() as profiler:
        way.run()
        if device == "cuda":
            torch.cuda.synchronize()
    attribute = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    times = {event.key: getattr(event, attribute) for event in profiler.key_averages()}
    output.write_text(json.dumps({name: time for name, time in times.items() if time > 0}))


def _way(shape: Shape, device: str) -> Way:
    if isinstance(shape, ConvolutionShape):
        return natively(depthwise_ways(shape, VOLUME, torch.bfloat16, "forward + backward", ["vtfast"], device)[0])
    if isinstance(shape, PoolingShape):
        return natively(pooling_ways(shape, ATTENTION, torch.bfloat16, "forward + backward", ["vtfast"], device)[0])
    if isinstance(shape, WindowShape):
        return core_ways(shape, torch.bfloat16, "forward + backward", ["vtfast"], "packed", device)[0]
    return space_time_ways(shape, torch.bfloat16, "forward + backward", ["vtfast"], device)[0]


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]) if len(sys.argv) > 3 else None)
