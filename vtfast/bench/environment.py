"""What the figures were taken on."""

import os
import platform
import re
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

import vtfast
from benchmarks.allocator import keeps_pages

# What changes figures, if set.
_VARIABLES = ("ATEN_CPU_CAPABILITY", "VTFAST_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS", "KMP_AFFINITY")


def facts(allocator: str) -> dict[str, Any]:
    """The machine, the software and the state of this process."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "vtfast": vtfast.__version__,
        "commit": commit(),
        "instruction set": vtfast.build_info()["cpu_instruction_set"],
        "allocator": _allocator(allocator),
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "date": now(),
        "load": os.getloadavg()[0],
    }


def now() -> str:
    """The time to the minute."""
    return datetime.now(timezone.utc).isoformat(timespec="minutes")


def processor() -> str:
    """The processor by name, with what matters of its instructions."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine()
    text = cpuinfo.read_text()
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = set(text.split())
    known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{name[1].strip() if name else platform.machine()} ({', '.join(known)})"


def machine_name() -> str:
    """A folder's name for this machine: processor and number of cores."""
    name = re.sub(r"\((?:R|TM)\)", "", processor().split(" (avx")[0])
    return "-".join(re.findall(r"[a-z0-9]+", name.lower())) + f"-{os.cpu_count()}-cores"


def _allocator(name: str) -> str:
    preloaded = " ".join(Path(path).name for path in re.split(r"[ :]", os.environ.get("LD_PRELOAD", "")) if path)
    libc = preloaded or " ".join(platform.libc_ver())
    return f"{name} ({libc}, {'keeps' if keeps_pages() else 'returns'} freed pages)"


def commit() -> str | None:
    """The checkout's commit, marked where what is measured differs from it."""
    root = Path(__file__).parents[1]

    def git(*args: str) -> str:
        return subprocess.run(["git", "-C", root, *args], check=True, capture_output=True, text=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "vtfast", "csrc")
        return git("rev-parse", "--short", "HEAD") + (" and uncommitted changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
