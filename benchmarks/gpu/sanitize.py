"""NVIDIA's compute-sanitizer over small problems: `python -m benchmarks.gpu.sanitize TOOL DEVICE`."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu.stages import SKIPPED_STATUS

_ROOT = Path(__file__).parents[2]
_ELSEWHERE = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer")
_FOUND = 99  # the status that stands for errors found

_REFUSALS = ("Device not supported", "Unable to find injection library", "no CUDA-capable device", "not supported on")


def main(tool: str, device: str) -> int:
    """0 if the tool found nothing, the skipped status where it cannot run."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_ELSEWHERE])
    program = shutil.which("compute-sanitizer", path=path)
    if device != "cuda" or program is None:
        print("not on a GPU" if device != "cuda" else "compute-sanitizer is not installed")
        return SKIPPED_STATUS
    # Blocks of torch's allocator would hide an access beyond a tensor.
    env = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "PYTHONPATH": str(_ROOT)}
    command = [program, "--tool", tool, "--error-exitcode", str(_FOUND), "--print-limit", "20"]
    command += [sys.executable, "-u", "-m", "benchmarks.gpu.small_problems", device]
    process = subprocess.Popen(command, cwd=_ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    status = process.wait()
    refused = next((line.strip() for line in lines if any(refusal in line for refusal in _REFUSALS)), None)
    if refused is not None:
        print(refused)
        return SKIPPED_STATUS
    summaries = [line.strip() for line in lines if re.search(r"ERROR SUMMARY|RACECHECK SUMMARY", line)]
    print(f"{tool}: {summaries[-1] if summaries else f'status {status}'}")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
