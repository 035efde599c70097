"""An operation, kernel against reference: its results and all gradients, and the comparison by the package's rule."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from target import CPU_KERNELS
from tolerance import BACKWARD, FORWARD, assert_as_accurate
from torch import Tensor

from vtfast import use_backend
from vtfast.check.problems.problem import Problem, normal
from vtfast.testing.case import as_tuple
from vtfast.testing.case import evaluate as evaluation

__all__ = ["Problem", "assert_same", "check", "evaluate", "native", "normal", "plain"]


def native(problem: Problem) -> tuple[Tensor, ...]:
    """What the compiled kernel makes of the problem, or an error."""
    with use_backend("native"):
        return as_tuple(problem.operation.function(**problem.leaves, **problem.settings))


def plain(problem: Problem) -> tuple[Tensor, ...]:
    """What plain PyTorch makes of it."""
    return as_tuple(problem.operation.reference(**problem.leaves, **problem.settings))


def evaluate(
    problem: Problem, forward: Callable[[Problem], tuple[Tensor, ...]] = native, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """`out0`, `out1`... and `d_<name>` of each leaf, computed in `dtype`, that of the problem if None."""
    leaves = {name: tensor.to(dtype or tensor.dtype) for name, tensor in problem.leaves.items()}
    return evaluation(lambda **leaves: forward(replace(problem, leaves=leaves)), leaves, problem.grads_out).values


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
