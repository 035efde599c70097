"""What figures were taken on."""

import os
import platform
import re
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

import vtfast
from vtfast.bench.allocator import keeps_pages

# What changes figures, if set.
_VARIABLES = ("ATEN_CPU_CAPABILITY", "VTFAST_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS", "KMP_AFFINITY")


def facts(allocator: str, device: str = "cpu") -> dict[str, Any]:
    """The machine, the software and the state of this process.

    Args:
        allocator: what malloc was set to, "default" or "kept".
        device: "cpu" or "cuda".
    """
    return {
        **({"device": torch.cuda.get_device_name()} if device == "cuda" else {}),
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


def _allocator(name: str) -> str:
    preloaded = " ".join(Path(path).name for path in re.split(r"[ :]", os.environ.get("LD_PRELOAD", "")) if path)
    libc = preloaded or " ".join(platform.libc_ver())
    return f"{name} ({libc}, {'keeps' if keeps_pages() else 'returns'} freed pages)"


def commit() -> str | None:
    """The checkout's commit, marked where what is measured differs from it; None outside of a checkout."""
    root = Path(__file__).parents[2]

    def git(*args: str) -> str:
        return subprocess.run(["git", "-C", root, *args], check=True, capture_output=True, text=True).stdout.strip()

    try:
        if not git("ls-files", "vtfast/bench/environment.py"):
            return None  # installed beneath a checkout of something else
        changed = git("status", "--porcelain", "--untracked-files=no", "vtfast", "csrc")
        return git("rev-parse", "--short", "HEAD") + (" and uncommitted changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
