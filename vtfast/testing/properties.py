"""What an operation should hold beyond accuracy: each function says what is wrong, or None."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._pytree import tree_map_only

from vtfast.testing.accuracy import BACKWARD, FORWARD, Accuracy, measure
from vtfast.testing.calls import recorded_calls
from vtfast.testing.case import Case, Evaluation, same_bits

# Beyond so many elements in all, gradcheck compares random projections of the Jacobian instead of every element of it.
_LARGEST_FULL_GRADCHECK = 400


def measure_all(
    actual: Evaluation, plain: Evaluation, exact: Evaluation, terms: dict[str, float]
) -> dict[str, Accuracy]:
    """Each result and gradient held against the exact one, with `terms` of accuracy.py by name."""
    return {
        name: measure(
            actual.values[name],
            plain.values[name],
            exact.values[name],
            factor=FORWARD if name.startswith("out") else BACKWARD,
            terms=terms.get(name, 0.0),
        )
        for name in plain.values
    }


def not_repeatable(case: Case, threads: Sequence[int]) -> str | None:
    """Whether two runs differ in a bit, or a run with another number of CPU threads does."""
    first = case.actual()
    fault = _difference(case.actual(), first, "from run to run")
    if case.device.type != "cpu":
        return fault
    before = torch.get_num_threads()
    try:
        for number in threads:
            torch.set_num_threads(number)
            fault = fault or _difference(case.actual(), first, f"from {before} threads to {number}")
    finally:
        torch.set_num_threads(before)
    return fault


def _difference(again: Evaluation, first: Evaluation, what: str) -> str | None:
    for name, tensor in first.values.items():
        if not same_bits(again.values[name], tensor):
            count = int((again.values[name] != tensor).sum()) if again.values[name].shape == tensor.shape else "all"
            return f"{name} changes {what}, in {count} of {tensor.numel()} elements"
    return None


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fills what `torch.empty` returns, in C++ too, with NaN."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    with warnings.catch_warnings():
        # That an operation has no deterministic form is no matter here.
        warnings.simplefilter("ignore")
        torch.use_deterministic_algorithms(True, warn_only=True)
        memory.fill_uninitialized_memory = True
        try:
            yield
        finally:
            memory.fill_uninitialized_memory = fill
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def leaves_memory_unwritten(case: Case) -> str | None:
    """Whether NaN comes out where fresh memory is NaN, and does not where it is not."""
    usual = case.actual()
    with poisoned_memory():
        poisoned = case.actual()
    for name, tensor in usual.values.items():
        if not tensor.is_floating_point():
            continue
        unwritten = (poisoned.values[name].isnan() & ~tensor.isnan()).nonzero()
        if len(unwritten):
            return f"{name} has {len(unwritten)} elements that nobody wrote, the first at {unwritten[0].tolist()}"
    return None


def strided(tensor: Tensor) -> Tensor:
    """The same values as every second element of a larger tensor that is NaN elsewhere, last dimension slowest."""
    if tensor.dim() == 0 or not tensor.is_floating_point():
        return tensor
    larger = torch.stack([tensor, torch.full_like(tensor, float("nan"))], dim=-1)
    return larger.movedim(-2, 0).contiguous().movedim(0, -2)[..., 0]


def expanded(tensor: Tensor) -> Tensor:
    """One number at all places, as the gradient of a sum is."""
    return tensor.flatten()[:1].reshape([1] * tensor.dim()).expand(tensor.shape) if tensor.numel() else tensor


def depends_on_layout(case: Case, terms: dict[str, float]) -> str | None:
    """Whether a strided input or gradient, or an expanded gradient, costs accuracy.

    By the rule of accuracy.py, with what the operation makes of contiguous copies in the place of plain PyTorch.
    """
    constant = replace(case, grads_out=tuple(map(expanded, case.grads_out)))
    inputs = {name: strided(leaf) for name, leaf in case.leaves.items()}
    gradients = tuple(map(strided, case.grads_out))
    layouts = {
        "strided inputs": (replace(case, leaves=inputs), case),
        "strided gradients": (replace(case, grads_out=gradients), case),
        "expanded gradients": (constant, constant.contiguous()),
    }
    for layout, (changed, copied) in layouts.items():
        try:
            found = measure_all(changed.actual(), copied.actual(), copied.exact(), terms)
        except Exception as error:
            return f"{layout}: {describe(error)}"
        for name, accuracy in found.items():
            if accuracy.fault is not None:
                fault = accuracy.fault.replace("plain PyTorch", "the same with contiguous copies")
                return f"{layout}: {name}: {fault}"
    return None


def loses_nan(case: Case, names: Sequence[str], generator: torch.Generator) -> str | None:
    """Whether NaN, put into one element of one of these inputs, vanishes or comes up where it should not.

    A result or gradient has to hold what is not finite if that of plain PyTorch does, and only then. What becomes of an
    infinity depends on the order of operations, and so is no property to ask for.
    """
    for name in names:
        leaf = case.leaves[name]
        if not leaf.numel():
            continue
        place = int(torch.randint(leaf.numel(), (), generator=generator))
        spoilt = leaf.detach().clone(memory_format=torch.contiguous_format)
        spoilt.view(-1)[place] = torch.nan
        changed = replace(case, leaves=case.leaves | {name: spoilt})
        fault = _lost_or_spread(changed.actual(), changed.plain())
        if fault is not None:
            index = [int(i) for i in torch.unravel_index(torch.tensor(place), leaf.shape)]
            return f"NaN in {name} at {index}: {fault}"
    return None


def _lost_or_spread(actual: Evaluation, plain: Evaluation) -> str | None:
    for name, tensor in plain.values.items():
        wanted, came = (~x.isfinite() for x in (tensor, actual.values[name]))
        if wanted.any() and not came.any():
            return f"{name} is finite everywhere, that of plain PyTorch is not at {wanted.nonzero()[0].tolist()}"
        if came.any() and not wanted.any():
            return f"{name} is not finite at {came.nonzero()[0].tolist()}, that of plain PyTorch is everywhere"
    return None


def fails_opcheck(case: Case, operators: Sequence[OpOverload]) -> str | None:
    """What `torch.library.opcheck` says of the operators, called as the operation calls them."""
    calls = recorded_calls(lambda: case.actual(), lambda operator: operator in operators)
    for operator in operators:
        if operator not in calls:
            return f"{operator} is never called"
        args, kwargs = tree_map_only(Tensor, _fresh, calls[operator])
        try:
            torch.library.opcheck(operator, args, kwargs)
        except Exception as error:
            return f"{operator}: {describe(error)}"
    return None


def _fresh(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


def fails_gradcheck(case: Case) -> str | None:
    """What `torch.autograd.gradcheck` says of the operation in float64."""
    names = list(case.leaves)
    tensors = tuple(leaf.detach().double().requires_grad_() for leaf in case.leaves.values())
    wide = case.in_float64()

    def function(*tensors: Tensor) -> Any:
        return wide.call(case.fn, **dict(zip(names, tensors, strict=True)))

    fast = sum(tensor.numel() for tensor in tensors) > _LARGEST_FULL_GRADCHECK
    try:
        torch.autograd.gradcheck(function, tensors, fast_mode=fast)
    except Exception as error:
        return describe(error)
    return None


def describe(error: BaseException) -> str:
    """An exception in words."""
    return f"{type(error).__name__}: {error}"
