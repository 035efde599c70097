"""Counts what a piece of work costs by looking at every operator that it calls."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from vtfast.plan.cost import Call, Cost
from vtfast.plan.rules import RULES
from vtfast.plan.torch_rules import torch_call
from vtfast.plan.traffic import is_free, traffic

__all__ = ["OperatorCounter", "count"]


def count(run: Callable[[], object]) -> Cost:
    """What `run()` costs, which is done once: forward and backward, on any device, fake and meta tensors too.

    The operators of vtfast count as the compiled ones. Under this, layers see a dispatch mode and run plain PyTorch
    around them, so a perceptron counts every layer's result, which fused kernels may keep in the caches.

    Args:
        run: the work, without arguments.

    Returns:
        The totals and the calls of every operator. Products of attention are two in a forward and five in a backward,
        by true sizes of groups; what a backward computes again is not counted but for the scores.
    """
    counter = OperatorCounter()
    with counter:
        run()
    return Cost(tuple(counter.calls))


class OperatorCounter(TorchDispatchMode):
    """Notes every call of an operator within the context, in `calls`."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(
        self, func: OpOverload[Any, Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs the operator and notes it; one that is made of others only, as in inference mode, is noted as those."""
        kwargs = kwargs or {}
        if not isinstance(func, OpOverload) or func.namespace == "prim":
            return func(*args, **kwargs)
        if func._schema.name not in RULES:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = self.call(func, args, kwargs)
        self.after(func, args, kwargs, out)
        return out

    def call(self, func: OpOverload[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Makes a call."""
        return func(*args, **kwargs)

    def after(self, func: OpOverload[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Notes a call that has been made."""
        if not is_free(func):
            self.calls.append(_call(func, args, kwargs, out))


def _call(func: OpOverload[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Call:
    name = func._schema.name
    read, written = traffic(func, args, kwargs, out)
    call = Call(name, _dtype(args, out), read=read, written=written)
    rule = RULES.get(name)
    if rule is None:
        return torch_call(func, args, kwargs, out, call)
    names = (argument.name for argument in func._schema.arguments)
    return rule(dict(zip(names, args, strict=False)) | kwargs, out, call)


def _dtype(args: tuple[Any, ...], out: Any) -> str:
    """Of the first floating point tensor among the arguments, or of the result."""
    for value in (*args, out):
        first = value[0] if isinstance(value, (tuple, list)) and value else value
        if isinstance(first, Tensor) and first.is_floating_point():
            return str(first.dtype).removeprefix("torch.")
    return str(out.dtype).removeprefix("torch.") if isinstance(out, torch.Tensor) else "none"
