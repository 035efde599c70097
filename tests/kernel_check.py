"""An operation, kernel against reference: its results and all gradients, and the comparison by tolerance.py's rule."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from target import CPU_KERNELS, DEVICE
from tolerance import BACKWARD, FORWARD, assert_as_accurate
from torch import Tensor

from vtfast import use_backend

Function = Callable[..., Tensor | tuple[Tensor, ...]]


@dataclass(frozen=True)
class Operation:
    """An operation of `vtfast.ops`, and what tells whether its numbers are good."""

    name: str
    function: Function
    reference: Function
    terms: Callable[["Problem"], dict[str, float]]  # for each result of `evaluate`, the `terms` of tolerance.py
    tokens: tuple[str, ...]  # the arguments whose first dimension is that of clips
    largest_head_dim: int | None = None  # of the kernels for GPUs


@dataclass
class Problem:
    """Tensors in the dtype to be tested, and the settings of the operation."""

    operation: Operation
    leaves: dict[str, Tensor]  # the arguments with a gradient, tokens first
    settings: dict[str, Any]
    grads_out: tuple[Tensor, ...]  # in the layouts of the results
    head_dim: int

    @property
    def tokens(self) -> Tensor:
        return next(iter(self.leaves.values()))

    def changed(self, change: Callable[[Tensor], Tensor]) -> "Problem":
        """The same problem with `change` done to every tensor."""
        leaves = {name: change(tensor) for name, tensor in self.leaves.items()}
        return replace(self, leaves=leaves, grads_out=tuple(map(change, self.grads_out)))

    def of_clips(self, change: Callable[[Tensor], Tensor]) -> "Problem":
        """The same problem with `change` done to every tensor that has a batch of clips."""
        leaves = {name: change(x) if name in self.operation.tokens else x for name, x in self.leaves.items()}
        return replace(self, leaves=leaves, grads_out=tuple(map(change, self.grads_out)))


def native(problem: Problem) -> tuple[Tensor, ...]:
    """What the compiled kernel makes of the problem, or an error."""
    with use_backend("native"):
        return as_tuple(problem.operation.function(**problem.leaves, **problem.settings))


def plain(problem: Problem) -> tuple[Tensor, ...]:
    """What plain PyTorch makes of it."""
    return as_tuple(problem.operation.reference(**problem.leaves, **problem.settings))


def as_tuple(results: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (results,) if isinstance(results, Tensor) else tuple(results)


def evaluate(
    problem: Problem, forward: Callable[[Problem], tuple[Tensor, ...]] = native, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """`out0`, `out1`... and `d_<name>` of each leaf, computed in `dtype`, that of the problem if None."""
    leaves = {
        name: tensor.detach().to(dtype or tensor.dtype).requires_grad_() for name, tensor in problem.leaves.items()
    }
    results = forward(replace(problem, leaves=leaves))
    grads = torch.autograd.grad(
        results,
        list(leaves.values()),
        [grad.to(out.dtype) for grad, out in zip(problem.grads_out, results, strict=True)],
        allow_unused=True,
        materialize_grads=True,
    )
    named = {f"out{i}": out.detach() for i, out in enumerate(results)}
    return named | {f"d_{name}": grad for name, grad in zip(leaves, grads, strict=True)}


@contextmanager
def any_algorithm() -> Iterator[None]:
    """Without torch's deterministic mode, which some pooling of plain PyTorch on GPUs refuses."""
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True)


def unsupported(problem: Problem) -> bool:
    """Whether this is for the reference; the kernels of the CPU take everything."""
    if CPU_KERNELS:
        return False
    largest = problem.operation.largest_head_dim or problem.head_dim
    return problem.tokens.dtype == torch.float64 or problem.head_dim % 8 != 0 or problem.head_dim > largest


def check(problem: Problem) -> None:
    """The kernel's results and gradients are as accurate as those of plain PyTorch in the same dtype.

    Where no kernel takes the problem, the error says why.
    """
    if unsupported(problem):
        with pytest.raises(RuntimeError, match=rf"{problem.operation.name}.*(head_dim|float64|multiple of 8)"):
            native(problem)
        return
    actual = evaluate(problem)
    with any_algorithm():
        same_dtype = evaluate(problem, plain)
        exact = evaluate(problem, plain, torch.float64)
    terms = problem.operation.terms(problem)
    for name, result in actual.items():
        factor = FORWARD if name.startswith("out") else BACKWARD
        assert_as_accurate(result, same_dtype[name], exact[name], factor=factor, terms=terms[name], name=name)


def assert_same(results: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Bitwise, NaN included."""
    assert results.keys() == expected.keys()
    for name, result in results.items():
        torch.testing.assert_close(result, expected[name], rtol=0, atol=0, equal_nan=True, msg=name)


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    """Normal numbers in float64, for `place`."""
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def place(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(DEVICE, dtype)


def largest(tensor: Tensor) -> float:
    """Of what is finite; zero if there is nothing."""
    return tensor.double().nan_to_num(0, 0, 0).abs().max().item() if tensor.numel() else 0.0
