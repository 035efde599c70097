"""What a problem of an operation is."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from vtfast import use_backend
from vtfast.testing.case import Function

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Operation:
    """An operation of `vtfast.ops`, and what tells whether its numbers are good.

    Args:
        name: in `vtfast.ops`.
        function: the operation.
        reference: the same in plain PyTorch.
        terms: for each result and gradient, the `terms` of vtfast/testing/accuracy.py.
        tokens: the arguments whose first dimension is that of clips.
        largest_head_dim: of the kernels for GPUs; None if there is no limit that a test would reach.
    """

    name: str
    function: Function
    reference: Function
    terms: Callable[["Problem"], dict[str, float]]
    tokens: tuple[str, ...]
    largest_head_dim: int | None = None


@dataclass
class Problem:
    """Tensors in the dtype to be checked, and the settings of the operation.

    Args:
        operation: what computes it.
        leaves: the arguments with a gradient, tokens first.
        settings: all other arguments.
        grads_out: in the layouts of the results.
        head_dim: channels of a head.
    """

    operation: Operation
    leaves: dict[str, Tensor]
    settings: dict[str, Any]
    grads_out: tuple[Tensor, ...]
    head_dim: int

    @property
    def tokens(self) -> Tensor:
        """The first of the leaves."""
        return next(iter(self.leaves.values()))

    def changed(self, change: Callable[[Tensor], Tensor]) -> "Problem":
        """The same problem with `change` done to every tensor."""
        leaves = {name: change(tensor) for name, tensor in self.leaves.items()}
        return replace(self, leaves=leaves, grads_out=tuple(map(change, self.grads_out)))

    def of_clips(self, change: Callable[[Tensor], Tensor]) -> "Problem":
        """The same problem with `change` done to every tensor that has a batch of clips."""
        leaves = {name: change(x) if name in self.operation.tokens else x for name, x in self.leaves.items()}
        return replace(self, leaves=leaves, grads_out=tuple(map(change, self.grads_out)))

    def zero_terms(self) -> dict[str, float]:
        """The `terms` of a problem without clips, in which nothing is summed."""
        names = (*(f"out{i}" for i in range(len(self.grads_out))), *(f"d_{name}" for name in self.leaves))
        return dict.fromkeys(names, 0.0)


def on_backend(function: Function, backend: str) -> Function:
    """`function` with a backend of `use_backend`."""

    @wraps(function)
    def call(**arguments: Any) -> Any:
        with use_backend(backend):
            return function(**arguments)

    return call


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    """Normal numbers in float64."""
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def largest(tensor: Tensor) -> float:
    """Of what is finite; zero if there is nothing."""
    return tensor.double().nan_to_num(0, 0, 0).abs().max().item() if tensor.numel() else 0.0


def volume(sizes: Iterable[int]) -> int:
    """Product of sizes."""
    return torch.Size(sizes).numel()
