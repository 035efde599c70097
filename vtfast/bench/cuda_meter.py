"""Measuring on a device that works on its own: by its own events, and by what its allocator counts."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from vtfast.bench.measure import Meter
from vtfast.bench.peak_memory import peak_memory

_CYCLES_PER_SECOND = 2e9  # about; only the length of a pause depends on it


class EventMeter(Meter):
    """CUDA events around a run that finds nothing of its inputs in cache.

    Args:
        head_start: seconds for which the device pauses before the first event, so that the host can queue the run's
            kernels; 0 where what the host takes belongs to the time.
    """

    def __init__(self, head_start: float) -> None:
        cache = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
        self._swept = torch.empty(max(4 * cache, 2**28), dtype=torch.uint8, device="cuda")
        self._pause = int(head_start * _CYCLES_PER_SECOND)
        self._begin, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def seconds(self, run: Callable[[], Any]) -> float:
        self._swept.zero_()
        if self._pause:
            torch.cuda._sleep(self._pause)
        self._begin.record()
        kept = run()
        self._end.record()
        self._end.synchronize()
        del kept
        return self._begin.elapsed_time(self._end) * 1e-3

    def extra_bytes(self, run: Callable[[], Any]) -> int | None:
        kept: list[Any] = []
        peak = peak_memory(lambda: kept.append(run()), torch.device("cuda"))
        storages = [x.untyped_storage() for x in tree_leaves(kept) if isinstance(x, torch.Tensor)]
        sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
        return None if peak is None else max(0, peak - sum(sizes.values()))


def meter_for(device: str, head_start: float = 0.0) -> Meter:
    """The meter for "cuda" or "cpu"."""
    return EventMeter(head_start) if device == "cuda" else Meter()
