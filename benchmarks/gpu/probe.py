"""The device and its software, as JSON: `python -m benchmarks.gpu.probe DEVICE OUTPUT`."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import vtfast
from vtfast.bench import environment


def facts(device: str) -> dict[str, Any]:
    """What figures are taken on."""
    found: dict[str, Any] = {
        "name": environment.processor(),
        "torch": torch.__version__,
        "vtfast": vtfast.__version__,
        "threads": torch.get_num_threads(),
        "python": sys.version.split()[0],
        "processor": environment.processor(),
        "commit": environment.commit(),
        "date": environment.now(),
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "l2_mib": round(properties.L2_cache_size / 2**20, 1),
            "devices": torch.cuda.device_count(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "nvcc": _first_match(["nvcc", "--version"], r"release ([\d.]+)"),
            "driver": _query("driver_version"),
            "clocks": _query("clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu"),
        }
    return found


def slug(name: str) -> str:
    """A folder's name for a device."""
    return "-".join(re.findall(r"[a-z0-9]+", name.lower())) or "unknown"


def _query(fields: str) -> str | None:
    return _first_match(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"], r"(.+)")


def _first_match(command: list[str], pattern: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except subprocess.TimeoutExpired:
        return None
    match = re.search(pattern, done.stdout)
    return match[1].strip() if match else None


if __name__ == "__main__":
    found = facts(sys.argv[1])
    Path(sys.argv[2]).write_text(json.dumps(found))
    print(json.dumps(found, indent=1))
