"""State dicts out of files, whatever they are wrapped in. No code in a file is ever run."""

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_WRAPPERS = ("state_dict", "model_state", "model", "module")
_PREFIXES = ("module.", "_orig_mod.")


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a checkpoint file by name, on the CPU, memory-mapped where the format allows it.

    Args:
        path: a .safetensors file, or any file of `torch.save`.

    Returns:
        The state dict without wrappers ("state_dict", "model_state", "model", "module") and without the prefixes that
        DistributedDataParallel ("module.") and torch.compile ("_orig_mod.") add.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: a .safetensors file without the safetensors package.
        ValueError: the file is broken, holds Python objects that only unsafe loading could read, or no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint must be a file, got {path}")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    return unwrap(content, str(path))


def unwrap(content: Any, origin: str) -> dict[str, Tensor]:
    """The state dict inside `content`; `origin` names it in errors.

    Raises:
        ValueError: there is none.
    """
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{origin} must hold a state dict, got {_describe(content)}")
    strange = [f"{key!r}: {_describe(value)}" for key, value in content.items() if not isinstance(value, Tensor)]
    if strange:
        raise ValueError(f"{origin} must hold a state dict of tensors, got {', '.join(strange[:5])} in it")
    state_dict = dict(content)
    while prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in state_dict)), ""):
        state_dict = {key.removeprefix(prefix): value for key, value in state_dict.items()}
    return state_dict


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        message = f"reading {path} needs the safetensors package: pip install 'vtfast[safetensors]'"
        raise ImportError(message) from error
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error


def _read_pickle(path: Path) -> Any:
    is_zip = zipfile.is_zipfile(path)
    if is_zip and _is_torchscript(path):
        raise ValueError(
            f"{path} is a TorchScript archive, code beside weights, as OpenAI publishes CLIP. If you trust it, save "
            "its weights alone, torch.save(torch.jit.load(path).state_dict(), other_path), and load those."
        )
    try:
        # Only the zip format of torch 1.6 and newer can be mapped.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} does not load with weights_only=True: it is no checkpoint, or it holds Python objects beside its "
            f"tensors. If you trust it, save its state dict alone with torch.save and load that. ({_first_line(error)})"
        ) from error
    except (RuntimeError, EOFError, LookupError, ValueError) as error:
        raise ValueError(f"{path} is not a readable checkpoint: {_first_line(error)}") from error


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _describe(value: Any) -> str:
    return f"an empty {type(value).__name__}" if isinstance(value, Mapping) and not value else type(value).__name__
