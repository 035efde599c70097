"""The compiled libraries: which exist, which one this processor runs, and the schemas of the operations they implement.

This is the only module that knows of binaries. It loads one CPU library at import: the newest instruction set that was
built, that the processor has, and that `ATEN_CPU_CAPABILITY` (torch's own variable: default, avx2 or avx512) and
`VTFAST_CPU_CAPABILITY` (the name of a library) allow; and the CUDA library where torch has CUDA, without touching a
GPU. With none, `why_unavailable` says why and the operations fall back on their reference.
"""

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

__all__ = ["build_info", "cpu_instruction_set", "extension", "processor_vendor", "why_unavailable"]

# The parameters of the pools of q, k and v, and how all three are pooled.
_QKV_POOLS = ", ".join(
    [f"Tensor? {part}_{name}" for part in "qkv" for name in ("weight", "norm_weight", "norm_bias")]
    + ["SymInt[3] grid", "SymInt num_heads", "SymInt num_prefix", "int[] modes", "SymInt[] kernels"]
    + ["SymInt[] strides", "float eps"]
)

_SCHEMAS = (
    "depthwise_conv3d(Tensor x, Tensor weight, Tensor? bias, SymInt[3] stride, SymInt[3] padding, bool residual)"
    " -> Tensor",
    "depthwise_conv3d_backward(Tensor grad_out, Tensor x, Tensor weight, SymInt[3] stride, SymInt[3] padding,"
    " bool residual, bool[] wanted) -> (Tensor, Tensor, Tensor)",
    "grid_attention(Tensor qkv, Tensor? bias_table, Tensor? pad_qkv, Tensor? key_mask, SymInt[3] grid,"
    " SymInt num_heads, SymInt[3] block, SymInt[3] dilation, SymInt[3] shift, SymInt[3] bias_window,"
    " bool bias_by_window, bool pad_keys, SymInt num_prefix, bool prefix_keys, int prefix_queries, float scale)"
    " -> (Tensor, Tensor, Tensor)",
    "grid_attention_backward(Tensor grad_out, Tensor qkv, Tensor? bias_table, Tensor? pad_qkv, Tensor? key_mask,"
    " Tensor lse, Tensor prefix_lse, SymInt[3] grid, SymInt num_heads, SymInt[3] block,"
    " SymInt[3] dilation, SymInt[3] shift, SymInt[3] bias_window, bool bias_by_window, bool pad_keys,"
    " SymInt num_prefix, bool prefix_keys, int prefix_queries, float scale) -> (Tensor, Tensor, Tensor)",
    "pool_tokens(Tensor x, Tensor? weight, Tensor? norm_weight, Tensor? norm_bias, SymInt[3] grid, SymInt num_heads,"
    " SymInt num_prefix, int mode, SymInt[3] kernel, SymInt[3] stride, float eps) -> Tensor",
    "pool_tokens_backward(Tensor grad_out, Tensor x, Tensor? weight, Tensor? norm_weight, Tensor? norm_bias,"
    " SymInt[3] grid, SymInt num_heads, SymInt num_prefix, int mode, SymInt[3] kernel, SymInt[3] stride, float eps)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    f"pool_qkv(Tensor qkv, {_QKV_POOLS}) -> (Tensor, Tensor, Tensor)",
    f"pool_qkv_backward(Tensor d_q, Tensor d_k, Tensor d_v, Tensor qkv, {_QKV_POOLS})"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    "pooling_attention(Tensor q, Tensor k, Tensor v, Tensor? rel_pos_t, Tensor? rel_pos_h, Tensor? rel_pos_w,"
    " SymInt[3] q_grid, SymInt[3] k_grid, SymInt num_heads, SymInt num_prefix, bool residual, bool residual_prefix,"
    " float scale) -> (Tensor, Tensor)",
    "pooling_attention_backward(Tensor grad_out, Tensor q, Tensor k, Tensor v, Tensor? rel_pos_t, Tensor? rel_pos_h,"
    " Tensor? rel_pos_w, Tensor lse, SymInt[3] q_grid, SymInt[3] k_grid, SymInt num_heads, SymInt num_prefix,"
    " bool residual, bool residual_prefix, float scale) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    "rotary_embedding(Tensor qkv, Tensor cos, Tensor sin, SymInt[3] grid, SymInt num_heads, SymInt num_prefix,"
    " bool transpose) -> Tensor",
)

_CPU = torch.device("cpu")

_definitions = torch.library.Library("vtfast", "DEF")
for _schema in _SCHEMAS:
    _definitions.define(_schema, tags=(torch.Tag.pt2_compliant_tag,))
# A yardstick and no part of any model: the CPU's libraries alone have it, and nothing traces or differentiates it.
_definitions.define("repeated_exp(Tensor x, int rounds) -> Tensor")


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


def _cuda_build() -> dict[str, Any] | None:
    """Compiler and architectures of the CUDA library, or None without one; an older build's may still lie around."""
    build = _extension.build_info()["cuda"] if _extension is not None else None
    return build if build is not None and _library_path("cuda").exists() else None


def _load_cuda_library() -> str | None:
    """Loads the CUDA library, or returns why not."""
    if _extension is None:
        return _missing_extension
    if _cuda_build() is None:
        return "this build has no CUDA kernels"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} has no CUDA"
    path = _library_path("cuda")
    try:
        torch.ops.load_library(path)
    except OSError as error:
        return f"{path.name} does not load: {error}"
    return None


def _runs_on(capability: tuple[int, int], architectures: list[str]) -> bool:
    """Whether a GPU runs code for any of `architectures`, written as in `TORCH_CUDA_ARCH_LIST`."""
    for name in architectures:
        number, _, ptx = name.partition("+")
        major, minor = (int(part) for part in number.rstrip("af").split("."))
        if number[-1] == "a":
            fits = capability == (major, minor)
        else:
            # Compiled code runs on later minor versions too; PTX is compiled by the driver for whatever is newer.
            fits = capability >= (major, minor) and (capability[0] == major or (bool(ptx) and number[-1] != "f"))
        if fits:
            return True
    return False


_extension, _missing_extension = _import_extension()
cpu_instruction_set, _cpu_unavailable = _load_cpu_library()
_unavailable = {"cpu": _cpu_unavailable, "cuda": _load_cuda_library()}
_architectures: list[str] = (_cuda_build() or {}).get("architectures", [])


def why_unavailable(device: torch.device = _CPU) -> str | None:
    """Why no compiled kernels run on a device; None if some do."""
    if device.type not in _unavailable:
        return f"device {device.type} has no kernel in this build"
    reason = _unavailable[device.type]
    if reason is None and device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if not _runs_on(capability, _architectures):
            wanted = ", ".join(_architectures)
            return f"{device} has compute capability {capability[0]}.{capability[1]}, the kernels are for {wanted}"
    return reason


# torch.compile cannot trace the question for a capability. What torch.compiler.assume_constant_result sets, without its
# import of all of torch._dynamo.
why_unavailable._dynamo_marked_constant = True  # type: ignore[attr-defined]


def extension() -> ModuleType:
    """The extension module.

    Raises:
        RuntimeError: there is none.
    """
    if _extension is None:
        raise RuntimeError(f"this needs the compiled extension: {_missing_extension}")
    return _extension


def processor_vendor() -> str:
    """Who made this processor: "intel", "amd", or "other" for anyone else or without the extension."""
    return _extension.processor_vendor() if _extension is not None else "other"


def build_info() -> dict[str, Any]:
    """What this installation was built with and what of it runs here.

    Returns:
        A dict with `compiler`, `cpu_flags` (instruction set -> compiler flags), `torch_built_against` and
        `torch_floor` of the build (absent if nothing was compiled), and of this process: `cpu_supported` (instruction
        set -> whether the processor runs it), `cpu_built` (libraries that are present), `cpu_capability` (torch's),
        `cpu_instruction_set` (the library that is loaded, or None) and `unavailable` (why none is, or None). `cuda`
        is a dict with `built`, `compiler` (nvcc's version, or None), `architectures` (those compiled for), `loaded`
        and `unavailable` (why the library is not loaded, or None).
    """
    build = _extension.build_info() if _extension is not None else {}
    cuda = _cuda_build() or {"compiler": None, "architectures": []}
    features = _extension.processor_features() if _extension is not None else {}
    return {
        **build,
        "cpu_supported": features,
        "cpu_built": [name for name in features if _library_path(name).exists()],
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_instruction_set": cpu_instruction_set,
        "unavailable": _unavailable["cpu"],
        "cuda": {
            "built": _cuda_build() is not None,
            **cuda,
            "loaded": _unavailable["cuda"] is None,
            "unavailable": _unavailable["cuda"],
        },
    }
