"""Which memory allocator the process runs on, and how to run under another.

glibc returns large blocks to the system when they are freed and zeroes fresh pages when they are next asked for. An
eager model that makes and drops temporaries of hundreds of megabytes spends much of its time there, so its figures
say as much about the allocator as about the arithmetic. They are therefore taken twice: as users have it ("default"),
and with an allocator that keeps its pages ("kept").
"""

import mmap
import os
import resource
from collections.abc import Mapping

import torch

ALLOCATORS = ("default", "kept")

# malloc reads these once, when a process starts. Blocks of any size come from the heap, which never shrinks and grows
# in steps of 256 MiB.
_KEEP_PAGES = {
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(1 << 28),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 40),
}


def environment(allocator: str, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment in which a fresh process has this allocator.

    Args:
        allocator: "default" or "kept".
        base: the environment to start from, that of this process if None. An `LD_PRELOAD` in it (tcmalloc, jemalloc)
            stays in force in both.
    """
    if allocator not in ALLOCATORS:
        raise ValueError(f"allocator must be one of {', '.join(ALLOCATORS)}, got {allocator!r}")
    env = {name: value for name, value in (base or os.environ).items() if name not in _KEEP_PAGES}
    return env | (_KEEP_PAGES if allocator == "kept" else {})


def fault_in_heap(size: int = 4 * 2**30) -> None:
    """Touches `size` bytes and frees them, so that an allocator that keeps its pages has them at hand.

    Without it, where the heap still grows is a matter of luck: glibc asks for more than the size of an aligned block
    and gives the rest back, so that a freed block is too small for the next one of its size.
    """
    torch.ones(size, dtype=torch.uint8)


def keeps_pages() -> bool:
    """Whether a large tensor finds the pages of a larger one that was freed, as counted by the kernel."""
    size = 64 * 2**20
    fault_in_heap(4 * size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(size, dtype=torch.uint8)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return faults < size // mmap.PAGESIZE // 8
