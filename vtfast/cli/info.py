"""`vtfast info`: what is installed, what of it runs on this machine, and why."""

import argparse
import json
import platform
from typing import Any

import torch

import vtfast
from vtfast import build_info, current_backend

__all__ = ["add_command", "info"]


def add_command(commands: Any) -> None:
    """Adds the command to the sub-parsers of `vtfast`."""
    parser = commands.add_parser(
        "info",
        help="show the build, the instruction sets and which backend runs",
        description="Shows what is installed and what of it runs on this machine.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=info)


def info(args: argparse.Namespace) -> int:
    """Carries out the command and returns the exit status."""
    facts = _facts()
    if args.json:
        print(json.dumps(facts))
        return 0
    build = facts["build"]
    lines = (
        ("vtfast", facts["vtfast"]),
        ("python", facts["python"]),
        ("torch", f"{facts['torch']}, CPU capability {build['cpu_capability']}, {facts['threads']} threads"),
        ("built", _built(build)),
        *(("cpu kernels", line) for line in _instruction_sets(build)),
        ("cuda device", facts["cuda_device"] or "none"),
        ("cuda kernels", _cuda(build["cuda"])),
        ("backend", facts["runs"]),
    )
    previous = None
    for name, text in lines:
        print(f"{name if name != previous else '':<13} {text}")
        previous = name
    return 0


def _facts() -> dict[str, Any]:
    return {
        "vtfast": vtfast.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cuda_device": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "backend": current_backend(),
        "runs": _what_runs(build_info()),
        "build": build_info(),
    }


def _built(build: dict[str, Any]) -> str:
    if "compiler" not in build:
        return "nothing was compiled"
    against, floor = build["torch_built_against"], build["torch_floor"]
    return f"with {build['compiler']}, against torch {against}, for {floor} or newer"


def _instruction_sets(build: dict[str, Any]) -> list[str]:
    """A line for each instruction set that the build knows."""
    lines = []
    for name, supported in build["cpu_supported"].items():
        built = "built" if name in build["cpu_built"] else "not built"
        runs = "runs on this processor" if supported else "does not run on this processor"
        chosen = ", in use" if name == build["cpu_instruction_set"] else ""
        lines.append(f"{name}: {built}, {runs}{chosen}")
    return lines or ["none"]


def _cuda(cuda: dict[str, Any]) -> str:
    if not cuda["built"]:
        return "not built"
    built = f"built with {cuda['compiler']} for {', '.join(cuda['architectures'])}"
    return f"{built}, {'loaded' if cuda['loaded'] else 'not loaded: ' + cuda['unavailable']}"


def _what_runs(build: dict[str, Any]) -> str:
    """Which implementation answers on the CPU, and why."""
    backend = current_backend()
    if backend == "reference":
        return "reference: PyTorch, as asked for"
    if build["unavailable"] is None:
        return f"{backend}: compiled kernels ({build['cpu_instruction_set']}) on the CPU"
    if backend == "native":
        return f"native: an error, because {build['unavailable']}"
    return f"auto: the reference, because {build['unavailable']}"
