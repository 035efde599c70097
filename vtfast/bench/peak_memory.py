"""Peak memory of a piece of work."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch

__all__ = ["peak_memory"]


def peak_memory(work: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that `work` holds at its peak beyond what is held before it starts.

    On CUDA the allocator of torch counts. On the CPU the kernel does: the high-water mark of the resident set is reset
    (Linux, proc(5), clear_refs) and read again afterwards.

    Returns:
        The bytes, None where the system cannot tell. `work` has been done in either case.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    _release_free_pages()
    try:
        Path("/proc/self/clear_refs").write_text("5")
        start = _status("VmRSS")
    except (OSError, ValueError):
        start = None
    work()
    return None if start is None else max(_status("VmHWM") - start, 0)


def _release_free_pages() -> None:
    """Hands freed memory back to the system, so that memory left from earlier work does not hide new demand."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _status(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise ValueError(f"/proc/self/status has no {field}")
