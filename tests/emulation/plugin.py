"""Runs the operations on the emulated CUDA kernels: `pytest -p emulation.plugin --device emulation`.

`VTFAST_EMULATION_LIBRARY` names the library. The process must be without CPU kernels, which would claim the same
operators: `ATEN_CPU_CAPABILITY=default`.
"""

import os

import torch

from vtfast import _library


def _load() -> None:
    if _library.cpu_instruction_set is not None:
        raise RuntimeError(
            f"the CPU kernels {_library.cpu_instruction_set} are loaded; set ATEN_CPU_CAPABILITY=default"
        )
    torch.ops.load_library(os.environ["VTFAST_EMULATION_LIBRARY"])
    _library.why_unavailable = lambda *device: None


_load()
