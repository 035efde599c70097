"""Builds vtfast into this checkout for this machine's GPU and python: `python -m benchmarks.gpu.build`.

Nothing is fetched and no environment is made: what the build needs has to be there.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch

_ROOT = Path(__file__).parents[2]


def main() -> int:
    """0, or the status of what failed."""
    env = os.environ | {"PATH": os.pathsep.join([*_tools(), os.environ.get("PATH", os.defpath)])}
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        env["VTFAST_CUDA"] = "1"
        env.setdefault("TORCH_CUDA_ARCH_LIST", f"{major}.{minor}")
    return subprocess.run([sys.executable, "setup.py", "build_ext", "--inplace"], cwd=_ROOT, env=env).returncode


def _tools() -> list[str]:
    """Folders of the python's own cmake, and of nvcc where PATH does not know it."""
    folders = [str(Path(sys.executable).parent)]
    if shutil.which("nvcc") is None:
        folders.append(os.path.join(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin"))
    return folders


if __name__ == "__main__":
    sys.exit(main())
