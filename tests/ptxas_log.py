"""Reads what `nvcc -Xptxas -v` prints: the resources that each kernel takes."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

_ENTRY = re.compile(r"Compiling entry function '(?P<name>\S+)' for '(?P<arch>sm_\w+)'")
_MEMORY = re.compile(
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads"
)
_USED = re.compile(r"Used (?P<registers>\d+) registers")
_SHARED = re.compile(r"(?P<shared>\d+) bytes smem")


@dataclass
class Kernel:
    """One kernel as compiled for one architecture; bytes are a thread's, of shared memory a block's (static only)."""

    name: str
    arch: str
    registers: int = 0
    shared: int = 0
    stack: int = 0
    spilled: int = 0

    @property
    def fits_registers(self) -> bool:
        """Whether it uses no memory for what registers should hold."""
        return self.stack == 0 and self.spilled == 0


def parse(log: str) -> list[Kernel]:
    """The kernels of a log, each with what the functions that it calls take besides."""
    kernels: list[Kernel] = []
    for line in log.splitlines():
        if entry := _ENTRY.search(line):
            kernels.append(Kernel(entry["name"], entry["arch"]))
        elif not kernels:
            continue
        elif memory := _MEMORY.search(line):
            kernels[-1].stack += int(memory["stack"])
            kernels[-1].spilled += int(memory["stores"]) + int(memory["loads"])
        elif used := _USED.search(line):
            kernels[-1].registers = int(used["registers"])
            if shared := _SHARED.search(line):
                kernels[-1].shared = int(shared["shared"])
    return kernels


def table(kernels: Sequence[Kernel]) -> str:
    """The kernels as Markdown, the ones that spill most first."""
    header = "| registers | shared | stack | spilled | arch | kernel |\n| --- | --- | --- | --- | --- | --- |"
    ordered = sorted(kernels, key=lambda kernel: (-kernel.spilled, kernel.arch, kernel.name))
    names = _demangled([kernel.name for kernel in ordered])
    rows = [
        f"| {k.registers} | {k.shared} | {k.stack} | {k.spilled} | {k.arch} | {name} |"
        for k, name in zip(ordered, names, strict=True)
    ]
    return "\n".join([header, *rows])


def _demangled(names: list[str]) -> list[str]:
    """The names as C++ writes them, without parameters; as they are where there is no c++filt."""
    if shutil.which("c++filt") is None or not names:
        return names
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return [re.sub(r"^void |\(.*\)$", "", name) for name in text.splitlines()]
