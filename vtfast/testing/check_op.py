"""The check of one operation on one set of inputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch._library.custom_ops import CustomOpDef
from torch._ops import OpOverload, OpOverloadPacket

from vtfast.testing import properties
from vtfast.testing.accuracy import accumulation_eps
from vtfast.testing.case import Case, Evaluation, Function, as_tuple
from vtfast.testing.report import Check, Report, Row

Inputs = Mapping[str, Any]


def check_op(
    fn: Function,
    reference: Function,
    inputs: Inputs | Callable[[torch.Generator], Inputs],
    *,
    settings: Mapping[str, Any] | None = None,
    grads_out: Sequence[Tensor] | None = None,
    terms: Mapping[str, float] | None = None,
    seed: int = 0,
    threads: Sequence[int] = (1, 2, 3),
    layouts: bool = True,
    nan: bool | Sequence[str] = True,
    operators: Sequence[Any] = (),
    gradcheck: bool = False,
) -> Report:
    r"""Holds an operation's results and gradients against a reference in float64, and looks for what else goes wrong.

    A tensor passes if its largest error is at most \(2 e + f\), for a gradient \(3 e + f\), with \(e\) that of the
    reference in the dtype of the inputs and \(f\) one rounding of the result and of what is summed for it. So the
    same call judges float32 and bfloat16, and there is no tolerance to choose. NaN and infinities have to stand where
    those of the float64 reference do. Then come bitwise repeatability, memory that nobody wrote, layouts, NaN in an
    input and, where asked for, `torch.library.opcheck` and `torch.autograd.gradcheck`.

    Args:
        fn: the operation; called with inputs and settings by name, it returns a tensor or a tuple of tensors.
        reference: the same in plain PyTorch, for any floating dtype.
        inputs: the tensors by name, or a function that makes them from a generator. Gradients are taken of those with
            `requires_grad` or, if none has it, of all floating ones. Others, such as a mask, may be among them.
        settings: further arguments of both functions, which are passed as they are.
        grads_out: a gradient for each result; normal ones if None.
        terms: by row, "out0" or "d_x", the size of what is summed for one element, cancelling terms included. If None,
            it is what the float64 reference moves by when inputs change in their last float32 digit.
        seed: of what is drawn.
        threads: numbers of CPU threads whose results must agree bit by bit; () for run to run alone.
        layouts: whether strided inputs and gradients, and expanded gradients, are tried.
        nan: whether NaN is put into the inputs, or into which. To be left out where the operation may rightly ignore an
            element that the reference multiplies by zero, as under a mask.
        operators: custom operators that `fn` calls, for opcheck: as `torch.ops.library.name.default` or what
            `torch.library.custom_op` returns.
        gradcheck: whether torch's own check by finite differences runs, in float64.

    Returns:
        The report. Nothing that `fn` does raises, `report.raise_if_failed()` does.

    Raises:
        TypeError: an argument of another type.
        ValueError: no floating tensor among the inputs, `grads_out` of other shapes than the results, a name in
            `terms` that no result or gradient has, or one that is in inputs and settings.

    Example:
        >>> def swish(x, beta):
        ...     return x * torch.sigmoid(beta * x)
        >>> x = torch.randn(8, 16, dtype=torch.bfloat16)
        >>> report = check_op(torch.nn.functional.silu, lambda input: swish(input, 1.0), {"input": x})
        >>> report.raise_if_failed()
    """
    generator = torch.Generator().manual_seed(seed)
    case = _case(fn, reference, inputs, settings, generator)
    name = getattr(fn, "__name__", type(fn).__name__)
    chosen = [_overload(operator) for operator in operators]
    _check_grads_and_terms(grads_out, terms)
    spoilt = _spoilt(case, nan)
    try:
        results = as_tuple(case.call(reference, **case.leaves))
    except Exception as error:
        return _stopped(name, seed, f"the reference: {properties.describe(error)}")
    case = replace(case, grads_out=_grads_out(results, grads_out, generator))
    try:
        plain, exact = case.plain(), case.exact()
    except Exception as error:
        return _stopped(name, seed, f"the reference: {properties.describe(error)}")
    sizes = _measured_terms(case, exact, generator) if terms is None else dict(terms)
    unknown = set(sizes) - set(plain.values)
    if unknown:
        raise ValueError(f"terms must be among {', '.join(plain.values)}, got {', '.join(sorted(unknown))}")
    try:
        actual = case.actual()
    except Exception as error:
        return _stopped(name, seed, properties.describe(error))
    if actual.values.keys() != plain.values.keys():
        counts = [sum(key.startswith("out") for key in found.values) for found in (actual, plain)]
        return _stopped(name, seed, f"{counts[0]} results came, wanted {counts[1]}")
    rows = _rows(actual, plain, exact, sizes)
    planned: dict[str, Callable[[], str | None]] = {
        "repeatable": lambda: properties.not_repeatable(case, threads),
        "fresh memory": lambda: properties.leaves_memory_unwritten(case),
        "layouts": lambda: properties.depends_on_layout(case, sizes),
        "nan": lambda: properties.loses_nan(case, spoilt, generator),
        "opcheck": lambda: properties.fails_opcheck(case, chosen),
        "gradcheck": lambda: properties.fails_gradcheck(case),
    }
    # A wrong tensor is wrong in every layout, and its NaN are not where they belong: one finding is enough.
    accurate = all(row.passed for row in rows)
    unwanted = {
        "layouts": not layouts or not accurate,
        "nan": not spoilt or not accurate,
        "opcheck": not chosen,
        "gradcheck": not gradcheck,
    }
    checks = (Check(key, _fault(find)) for key, find in planned.items() if not unwanted.get(key))
    return Report(name, seed, tuple(rows), tuple(checks))


def _stopped(name: str, seed: int, fault: str) -> Report:
    """The report of what could not be run."""
    return Report(name, seed, (), (Check("runs", fault),))


def _case(
    fn: Function,
    reference: Function,
    inputs: Inputs | Callable[[torch.Generator], Inputs],
    settings: Mapping[str, Any] | None,
    generator: torch.Generator,
) -> Case:
    for function, what in ((fn, "fn"), (reference, "reference")):
        if not callable(function):
            raise TypeError(f"{what} must be callable, got {type(function).__name__}")
    made = inputs(generator) if callable(inputs) else inputs
    if not isinstance(made, Mapping) or not all(isinstance(name, str) for name in made):
        wanted = "inputs must be a mapping of names to tensors, or a function of a torch.Generator that makes one"
        raise TypeError(f"{wanted}, got {type(made).__name__}")
    settings = {} if settings is None else settings
    if not isinstance(settings, Mapping):
        raise TypeError(f"settings must be a mapping of names to values, got {type(settings).__name__}")
    twice = made.keys() & settings.keys()
    if twice:
        raise ValueError(f"inputs and settings must have no name in common, got {', '.join(sorted(twice))}")
    floating = {name: x for name, x in made.items() if isinstance(x, Tensor) and x.is_floating_point()}
    if not floating:
        raise ValueError(f"inputs must hold a floating tensor, got {', '.join(made) or 'nothing'}")
    leaves = {name: x for name, x in floating.items() if x.requires_grad} or floating
    others = {name: value for name, value in made.items() if name not in leaves}
    detached = {name: leaf.detach() for name, leaf in leaves.items()}
    return Case(fn, reference, detached, {**others, **settings})


def _overload(operator: Any) -> OpOverload:
    if isinstance(operator, CustomOpDef):
        return operator._opoverload
    if isinstance(operator, OpOverloadPacket):
        operator = operator.default
    if not isinstance(operator, OpOverload):
        wanted = "torch.ops.library.name.default or what torch.library.custom_op returns"
        raise TypeError(f"operators must be given as {wanted}, got {type(operator).__name__}")
    return operator


def _check_grads_and_terms(grads_out: Sequence[Tensor] | None, terms: Mapping[str, float] | None) -> None:
    if grads_out is not None and not (
        isinstance(grads_out, (tuple, list)) and all(isinstance(grad, Tensor) for grad in grads_out)
    ):
        raise TypeError(f"grads_out must be a tuple of tensors or None, got {type(grads_out).__name__}")
    if terms is not None and not isinstance(terms, Mapping):
        raise TypeError(f"terms must be a mapping of names to numbers or None, got {type(terms).__name__}")


def _spoilt(case: Case, nan: bool | Sequence[str]) -> list[str]:
    """The inputs that NaN is put into."""
    if isinstance(nan, bool):
        return list(case.leaves) if nan else []
    if isinstance(nan, str) or not all(isinstance(name, str) for name in nan):
        raise TypeError(f"nan must be a bool or names of inputs, got {nan!r}")
    return [name for name in nan if name in case.leaves]


def _grads_out(
    results: Sequence[Tensor], given: Sequence[Tensor] | None, generator: torch.Generator
) -> tuple[Tensor, ...]:
    if given is None:
        return tuple(torch.randn(out.shape, generator=generator).to(out.device, out.dtype) for out in results)
    shapes = [tuple(out.shape) for out in results]
    if [tuple(grad.shape) for grad in given] != shapes:
        raise ValueError(f"grads_out must have shapes {shapes}, got {[tuple(grad.shape) for grad in given]}")
    return tuple(given)


def _measured_terms(case: Case, exact: Evaluation, generator: torch.Generator) -> dict[str, float]:
    """What each tensor moves by, in rounding units, when every input changes by one, up or down."""
    dtype = next(iter(case.leaves.values())).dtype
    eps = accumulation_eps(dtype)

    def nudged(tensor: Tensor) -> Tensor:
        signs = torch.randint(2, tensor.shape, generator=generator).to(tensor.device).double() * 2 - 1
        return tensor.detach().double() * (1 + eps * signs)

    sizes = dict.fromkeys(exact.values, 0.0)
    for _ in range(2):
        leaves = {name: nudged(leaf) for name, leaf in case.leaves.items()}
        moved = replace(case, leaves=leaves, grads_out=tuple(map(nudged, case.grads_out))).exact()
        for name, tensor in exact.values.items():
            change = (moved.values[name].double() - tensor.double()).abs().nan_to_num(0, 0, 0)
            sizes[name] = max(sizes[name], change.max().item() / eps if change.numel() else 0.0)
    return sizes


def _rows(actual: Evaluation, plain: Evaluation, exact: Evaluation, sizes: dict[str, float]) -> list[Row]:
    found = properties.measure_all(actual, plain, exact, sizes)
    rows = []
    for name, accuracy in found.items():
        fault, error = accuracy.fault, accuracy.error
        if name in actual.missing - plain.missing:
            fault, error = "no gradient came", float("inf")
        rows.append(
            Row(
                name,
                str(actual.values[name].dtype).removeprefix("torch."),
                error,
                accuracy.plain_error,
                accuracy.allowed,
                accuracy.index,
                accuracy.wanted,
                accuracy.came,
                fault,
            )
        )
    return rows


def _fault(find: Callable[[], str | None]) -> str | None:
    """What a property's check found, or what the operation raised meanwhile."""
    try:
        return find()
    except Exception as error:
        return properties.describe(error)
