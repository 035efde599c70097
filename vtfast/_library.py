"""The compiled libraries: which exist, which one this processor runs, and the schemas of the operations they implement.

This is the only module that knows of binaries. It loads one CPU library at import: the newest instruction set that was
built, that the processor has, and that `ATEN_CPU_CAPABILITY` (torch's own variable: default, avx2 or avx512) and
`VTFAST_CPU_CAPABILITY` (the name of a library) allow. With none, `why_unavailable` says why and the operations fall
back on their reference.
"""

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

__all__ = ["build_info", "cpu_instruction_set", "why_unavailable"]

_SCHEMAS = (
    "grid_attention(Tensor qkv, Tensor? bias_table, Tensor? pad_qkv, Tensor? key_mask, SymInt[3] grid,"
    " SymInt num_heads, SymInt[3] block, SymInt[3] dilation, SymInt[3] shift, SymInt[3] bias_window,"
    " bool bias_by_window, SymInt num_prefix, bool prefix_keys, int prefix_queries, float scale)"
    " -> (Tensor, Tensor, Tensor)",
    "grid_attention_backward(Tensor grad_out, Tensor qkv, Tensor? bias_table, Tensor? pad_qkv, Tensor? key_mask,"
    " Tensor lse, Tensor prefix_lse, SymInt[3] grid, SymInt num_heads, SymInt[3] block,"
    " SymInt[3] dilation, SymInt[3] shift, SymInt[3] bias_window, bool bias_by_window, SymInt num_prefix,"
    " bool prefix_keys, int prefix_queries, float scale) -> (Tensor, Tensor, Tensor)",
)

_definitions = torch.library.Library("vtfast", "DEF")
for _schema in _SCHEMAS:
    _definitions.define(_schema, tags=(torch.Tag.pt2_compliant_tag,))


def _import_extension() -> tuple[ModuleType | None, str | None]:
    """The extension module, or why there is none: a checkout may be used without building it."""
    try:
        return importlib.import_module("vtfast._C"), None
    except ImportError as error:
        return None, f"vtfast runs without its compiled extension ({error})"


def _library_path(name: str) -> Path:
    return Path(__file__).with_name(f"_kernels_{name}.so")


def _allowed(names: list[str]) -> list[str]:
    """Those of `names`, from the oldest instruction set to the newest, that the environment allows."""
    cap = os.environ.get("VTFAST_CPU_CAPABILITY")
    if cap is not None and cap not in names:
        raise ValueError(f"VTFAST_CPU_CAPABILITY must be one of {', '.join(names)}, got {cap!r}")
    allowed = names if cap is None else names[: names.index(cap) + 1]
    capability = torch.backends.cpu.get_cpu_capability()
    if capability == "AVX2":
        return [name for name in allowed if name == "avx2"]
    return allowed if capability.startswith("AVX") else []


def _load_cpu_library() -> tuple[str | None, str | None]:
    """Loads the best library and returns its instruction set, or None and why there is none."""
    if _extension is None:
        return None, _missing_extension
    features = _extension.processor_features()
    built = [name for name in features if _library_path(name).exists()]
    if not built:
        return None, "this build has no compiled CPU kernels"
    supported = [name for name in built if features[name]]
    if not supported:
        return None, f"this processor runs none of the compiled CPU kernels: {', '.join(built)}"
    allowed = [name for name in _allowed(list(features)) if name in supported]
    if not allowed:
        capability = torch.backends.cpu.get_cpu_capability()
        return None, f"torch's CPU capability is {capability}, which allows none of {', '.join(supported)}"
    path = _library_path(allowed[-1])
    try:
        torch.ops.load_library(path)
    except OSError as error:
        return None, f"{path.name} does not load: {error}"
    return allowed[-1], None


_extension, _missing_extension = _import_extension()
cpu_instruction_set, _unavailable = _load_cpu_library()


def why_unavailable() -> str | None:
    """Why no compiled CPU kernels are loaded; None if they are."""
    return _unavailable


def build_info() -> dict[str, Any]:
    """What this installation was built with and what of it runs here.

    Returns:
        A dict with `compiler`, `cpu_flags` (instruction set -> compiler flags), `torch_built_against`, `torch_floor`
        and `cuda` (None: not built) of the build (absent if nothing was compiled), and of this process:
        `cpu_supported` (instruction set -> whether the processor runs it), `cpu_built` (libraries that are present),
        `cpu_capability` (torch's), `cpu_instruction_set` (the library that is loaded, or None) and `unavailable`
        (why none is, or None).
    """
    build = _extension.build_info() if _extension is not None else {"cuda": None}
    features = _extension.processor_features() if _extension is not None else {}
    return {
        **build,
        "cpu_supported": features,
        "cpu_built": [name for name in features if _library_path(name).exists()],
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_instruction_set": cpu_instruction_set,
        "unavailable": _unavailable,
    }
