"""What the tests marked `every_device` run on; `pytest --device` chooses, and outside pytest it is the CPU.

"cpu" and "cuda" are the kernels of that device. "emulation" is the CUDA kernels run on the host, on tensors of the CPU:
thousands of times slower, so that `thinned` gives it fewer cases.
"""

import os
from collections.abc import Iterable, Iterator
from typing import TypeVar
from unittest.mock import patch

import torch

from vtfast import _library

NAMES = ("cpu", "cuda", "emulation")
DEVICE = torch.device("cpu")
EMULATED = False
CPU_KERNELS = True

Value = TypeVar("Value")


def choose(name: str) -> None:
    """Sets the constants; to be called before a test module takes them from here."""
    global DEVICE, EMULATED, CPU_KERNELS
    DEVICE = torch.device("cuda" if name == "cuda" else "cpu")
    EMULATED = name == "emulation"
    CPU_KERNELS = name == "cpu"
    if name == "cuda":
        # Plain PyTorch is the yardstick: full float32, and sums in float32.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or deterministic mode refuses matrix products


def thinned(values: Iterable[Value], *emulated: Value) -> list[Value]:
    """All `values`, or under emulation those few of them that take every path."""
    values = list(values)
    assert set(emulated) <= set(values)
    return list(emulated) if EMULATED else values


def why_unavailable() -> str | None:
    """Why the kernels to be tested cannot run here; None if they can."""
    if DEVICE.type == "cuda" and not torch.cuda.is_available():
        return "torch finds no GPU"
    if EMULATED and _library.cpu_instruction_set is not None:
        return "the kernels of the CPU are loaded; tests/emulation/plugin.py says how to load the others"
    return _library.why_unavailable(DEVICE)


def in_several_orders() -> Iterator[None]:
    """Once an order in which the pieces of the work may run: no result may depend on it."""
    threads = torch.get_num_threads()
    try:
        with patch.dict(os.environ):
            for number in thinned((2, 1, 3), 2, 1):
                torch.set_num_threads(number)
                os.environ["VTFAST_EMULATION_SEED"] = str(number)
                yield
    finally:
        torch.set_num_threads(threads)
