"""Which implementation answers: the compiled kernels or the reference."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

BACKENDS = ("auto", "native", "reference")
# How the error of "native" begins where no kernel supports the input.
NO_KERNEL = "no compiled kernel for"


def _checked(name: str, origin: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"{origin} must be one of {', '.join(BACKENDS)}, got {name!r}")
    return name


_backend = _checked(os.environ.get("VTFAST_BACKEND", "auto"), "VTFAST_BACKEND")
_warned: set[str] = set()


def current_backend() -> str:
    """The backend in force: "auto", "native" or "reference"."""
    return _backend


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Runs the enclosed operations with one backend; the environment variable `VTFAST_BACKEND` sets the default.

    Args:
        name: "auto" takes the compiled kernels where they support the input and the reference elsewhere; "native"
            raises where no kernel supports the input, naming every reason; "reference" is plain PyTorch.

    Raises:
        ValueError: `name` is none of these.
    """
    global _backend
    previous, _backend = _backend, _checked(name, "backend")
    try:
        yield
    finally:
        _backend = previous


def use_native(op: str, reasons: Sequence[str]) -> bool:
    """Whether `op` runs compiled, given the `reasons` why no kernel supports this input (empty if one does).

    Raises:
        RuntimeError: the backend is "native" and there are reasons against it.
    """
    if _backend == "reference":
        return False
    if not reasons:
        return True
    message = f"{NO_KERNEL} {op}: {'; '.join(reasons)}"
    if _backend == "native":
        raise RuntimeError(message)
    if not torch.compiler.is_compiling() and message not in _warned:
        _warned.add(message)
        warnings.warn(f"{message}. The reference answers, slower (said once).", stacklevel=4)
    return False
