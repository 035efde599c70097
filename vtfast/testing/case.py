"""One problem for an operation: what it is called with, its results and gradients."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

Results = Tensor | Sequence[Tensor]
Function = Callable[..., Results]


def as_tuple(results: Results) -> tuple[Tensor, ...]:
    """The results of an operation that may return one tensor or several.

    Raises:
        TypeError: something else came.
    """
    several = (results,) if isinstance(results, Tensor) else results
    if not isinstance(several, (tuple, list)) or not all(isinstance(result, Tensor) for result in several):
        got = type(results).__name__
        if isinstance(results, (tuple, list)):
            got += f" of {', '.join(type(result).__name__ for result in results)}"
        raise TypeError(f"the operation must return a tensor or a tuple of tensors, got {got}")
    return tuple(several)


@dataclass(frozen=True)
class Evaluation:
    """Results and gradients of one call.

    Args:
        values: `out0`, `out1`... and `d_<name>` of each leaf, zeros where none came.
        missing: the gradients that did not come.
    """

    values: dict[str, Tensor]
    missing: frozenset[str]


def evaluate(forward: Function, leaves: Mapping[str, Tensor], grads_out: Sequence[Tensor]) -> Evaluation:
    """Results of `forward` and gradients of its arguments.

    Args:
        forward: called with the leaves by name.
        leaves: the arguments with a gradient.
        grads_out: a gradient for each result; those of results that have none, such as indices, are not used.
    """
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in leaves.items()}
    results = as_tuple(forward(**leaves))
    named = {f"out{i}": result.detach() for i, result in enumerate(results)}
    pairs = [
        (result, grad.to(result.dtype))
        for result, grad in zip(results, grads_out, strict=False)
        if result.requires_grad and result.shape == grad.shape
    ]
    grads: Sequence[Tensor | None] = [None] * len(leaves)
    if pairs and leaves:
        outs, grads_of_outs = zip(*pairs, strict=True)
        grads = torch.autograd.grad(outs, list(leaves.values()), grads_of_outs, allow_unused=True)
    missing = {f"d_{name}" for name, grad in zip(leaves, grads, strict=True) if grad is None}
    for (name, leaf), grad in zip(leaves.items(), grads, strict=True):
        named[f"d_{name}"] = torch.zeros_like(leaf, requires_grad=False) if grad is None else grad
    return Evaluation(named, frozenset(missing))


@dataclass(frozen=True)
class Case:
    """An operation, its reference, and one set of arguments.

    Args:
        fn: the operation.
        reference: what it should compute, in PyTorch.
        leaves: the arguments with a gradient.
        others: all other arguments.
        grads_out: a gradient for each result.
    """

    fn: Function
    reference: Function
    leaves: dict[str, Tensor]
    others: dict[str, Any]
    grads_out: tuple[Tensor, ...] = ()

    @property
    def device(self) -> torch.device:
        """Of the first tensor; the CPU without one."""
        tensors = (x for x in (*self.leaves.values(), *self.others.values()) if isinstance(x, Tensor))
        return next((tensor.device for tensor in tensors), torch.device("cpu"))

    def call(self, function: Function, **leaves: Tensor) -> Results:
        """`function` of these leaves and the other arguments."""
        return function(**leaves, **self.others)

    def actual(self) -> Evaluation:
        """What the operation makes of it."""
        return evaluate(lambda **leaves: self.call(self.fn, **leaves), self.leaves, self.grads_out)

    def plain(self) -> Evaluation:
        """What the reference makes of it in the same dtype."""
        return evaluate(lambda **leaves: self.call(self.reference, **leaves), self.leaves, self.grads_out)

    def exact(self) -> Evaluation:
        """What the reference makes of it in float64."""
        wide = self.in_float64()
        return evaluate(lambda **leaves: wide.call(wide.reference, **leaves), wide.leaves, wide.grads_out)

    def contiguous(self) -> "Case":
        """The same with contiguous leaves and gradients."""
        leaves = {name: leaf.contiguous() for name, leaf in self.leaves.items()}
        return replace(self, leaves=leaves, grads_out=tuple(grad.contiguous() for grad in self.grads_out))

    def in_float64(self) -> "Case":
        """The same with every floating argument in float64; what is inside of tuples and the like stays as it is."""
        leaves = {name: leaf.detach().double() for name, leaf in self.leaves.items()}
        return replace(self, leaves=leaves, others={name: _wide(value) for name, value in self.others.items()})


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same to the last bit, the sign of zero included; one NaN is as good as another."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.is_floating_point():
        return torch.equal(a, b)
    equal = (a == b) & (a.signbit() == b.signbit()) | a.isnan() & b.isnan()
    return bool(equal.all())


def _wide(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
