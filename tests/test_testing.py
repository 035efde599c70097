"""`vtfast.testing.check_op` on a right operation and on the same with one thing wrong."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from vtfast.testing import check_op

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
Call = Callable[..., Any]


def plain(x: Tensor, weight: Tensor, scale: float = 1.0) -> Tensor:  # [N, C], [C, D] -> [N, D]
    return (scale * x @ weight).softmax(dim=-1)


def inputs(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(size, generator=generator).to(dtype) for name, size in (("x", (7, 6)), ("weight", (6, 5)))
    }


def fault_of(fn: Call, name: str, reference: Call = plain, **options: Any) -> str:
    """What the report says of the row or check `name`, which has to be wrong."""
    report = check_op(fn, reference, options.pop("inputs", None) or inputs(), **options)
    assert not report.passed
    faults = {part.name: part.fault for part in (*report.rows, *report.checks)}
    with pytest.raises(AssertionError, match="FAILED"):
        report.raise_if_failed()
    assert faults[name] is not None, str(report)
    return faults[name]


class Formula(torch.autograd.Function):
    """`plain` with its gradients written down, and room for a mistake in each."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, factors: tuple[float | None, float | None]) -> Tensor:
        out = plain(x, weight)
        ctx.save_for_backward(x, weight, out)
        ctx.factors = factors
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight, out = ctx.saved_tensors
        d_scores = out * (grad - (grad * out).sum(dim=-1, keepdim=True))
        grads = (d_scores @ weight.T, x.T @ d_scores)
        d_x, d_weight = (None if f is None else f * g for f, g in zip(ctx.factors, grads, strict=True))
        return d_x, d_weight, None


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_right_operation_passes(dtype: torch.dtype) -> None:
    report = check_op(
        lambda x, weight: Formula.apply(x, weight, (1.0, 1.0)),
        plain,
        lambda generator: {"x": torch.randn(7, 6, generator=generator).to(dtype), "weight": inputs(dtype)["weight"]},
        gradcheck=True,
    )
    report.raise_if_failed()
    assert [row.name for row in report.rows] == ["out0", "d_x", "d_weight"]
    assert [check.name for check in report.checks] == [
        "repeatable", "fresh memory", "layouts", "nan", "gradcheck",
    ]  # fmt: skip
    assert all(row.share <= 1 and row.error <= row.allowed for row in report.rows)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_wrong_result_is_named_with_place_and_values(dtype: torch.dtype) -> None:
    def wrong(x: Tensor, weight: Tensor) -> Tensor:
        spoil = torch.zeros(7, 5, dtype=dtype)
        spoil[3, 2] = 0.1
        return plain(x, weight) + spoil

    report = check_op(wrong, plain, inputs(dtype))
    (row,) = [row for row in report.rows if not row.passed]
    assert (row.name, row.index) == ("out0", (3, 2))
    assert row.came - row.wanted == pytest.approx(0.1, abs=0.01)
    assert "out0: error 0.1" in str(report)


@pytest.mark.parametrize("wrong", ["x", "weight"])
def test_a_wrong_gradient_of_one_input_is_named(wrong: str) -> None:
    factors = tuple(1.01 if name == wrong else 1.0 for name in ("x", "weight"))
    report = check_op(lambda x, weight: Formula.apply(x, weight, factors), plain, inputs(), gradcheck=True)
    assert [part.name for part in (*report.rows, *report.checks) if not part.passed] == [f"d_{wrong}", "gradcheck"]


def test_a_gradient_that_does_not_come() -> None:
    assert fault_of(lambda x, weight: Formula.apply(x, weight, (1.0, None)), "d_weight") == "no gradient came"
    assert fault_of(lambda x, weight: plain(x.detach(), weight.detach()), "d_x") == "no gradient came"


def test_an_input_without_influence_needs_no_gradient() -> None:
    check_op(lambda x, weight: x * 2, lambda x, weight: x + x, inputs()).raise_if_failed()


class Restless:
    """The result changes in its last bit: from call to call, or with the number of threads."""

    def __init__(self, by_threads: bool) -> None:
        self.by_threads, self.calls = by_threads, 0

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        self.calls += 1
        number = torch.get_num_threads() if self.by_threads else self.calls
        return plain(x, weight) * (1 + 2e-7 * (number % 2))


def test_results_that_change() -> None:
    assert "from run to run" in fault_of(Restless(False), "repeatable")
    assert "threads to" in fault_of(Restless(True), "repeatable", threads=(2, 1))
    check_op(Restless(True), plain, inputs(), threads=()).raise_if_failed()


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (lambda x, weight: plain(x, weight).T, "shape (5, 7), wanted (7, 5)"),
        (lambda x, weight: plain(x, weight).double(), "dtype torch.float64, wanted torch.float32"),
        (
            lambda x, weight: plain(x, weight).where(x[:, :5] < 1, torch.nan),
            "NaN or its absence at [2, 1] and 2 more places",
        ),
        (lambda x, weight: plain(x, weight).clone().fill_(torch.inf), "infinity or its absence at [0, 0] and 34 more"),
    ],
    ids=["shape", "dtype", "nan", "infinity"],
)
def test_a_result_of_another_kind(wrong: Call, fault: str) -> None:
    assert fault in fault_of(wrong, "out0")


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (lambda x, weight: (plain(x, weight), x), "2 results came, wanted 1"),
        (lambda x, weight: None, "TypeError: the operation must return a tensor or a tuple of tensors, got NoneType"),
        (lambda x, weight: plain(x), "TypeError: plain() missing 1 required positional argument: 'weight'"),
    ],
)
def test_an_operation_that_does_not_run(wrong: Call, fault: str) -> None:
    assert fault_of(wrong, "runs") == fault


def test_a_reference_that_does_not_run_is_said_to_be_the_reference() -> None:
    assert fault_of(plain, "runs", reference=lambda x: x).startswith("the reference: TypeError")


def test_memory_that_nobody_wrote() -> None:
    torch.use_deterministic_algorithms(False)  # or the memory is NaN all the time

    def unwritten(x: Tensor, weight: Tensor) -> Tensor:
        fresh = torch.empty(1)
        return plain(x, weight) + torch.where(fresh.isnan(), fresh, 0)

    assert "35 elements that nobody wrote, the first at [0, 0]" in fault_of(unwritten, "fresh memory")


class SumOfGradientStorage(torch.autograd.Function):
    """Reads a gradient as if it were contiguous."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * grad.as_strided(grad.shape, torch.empty(grad.shape, device="meta").stride())


def test_gradients_read_as_if_they_were_contiguous() -> None:
    wrong = SumOfGradientStorage.apply
    fault = fault_of(lambda x: wrong(x), "layouts", lambda x: x + x, inputs={"x": inputs()["x"]})
    assert fault.startswith("strided gradients: d_x: ")


def test_nan_that_vanishes() -> None:
    fault = fault_of(lambda x, weight: plain(x.nan_to_num(), weight), "nan")
    assert fault.startswith("NaN in x at [")
    check_op(lambda x, weight: plain(x.nan_to_num(), weight), plain, inputs(), nan=["weight"]).raise_if_failed()


def test_masks_settings_and_indices() -> None:
    """Inputs without a gradient are passed as they are, and integer results have to be equal."""

    def largest(x: Tensor, mask: Tensor, fill: float, shift: int = 0) -> tuple[Tensor, Tensor]:
        values, indices = x.masked_fill(mask, fill).max(dim=1)
        return values, indices + shift

    given = {"x": inputs()["x"], "mask": torch.rand(7, 6) < 0.5}
    report = check_op(largest, largest, given, settings={"fill": -9.0}, nan=False)
    report.raise_if_failed()
    assert [row.name for row in report.rows] == ["out0", "out1", "d_x"]
    wrong = check_op(lambda **a: largest(**a, shift=1), largest, given, settings={"fill": -9.0})
    assert [row.name for row in wrong.rows if not row.passed] == ["out1"]


def test_gradients_of_those_inputs_that_require_them() -> None:
    given = inputs()
    given["weight"].requires_grad_()
    report = check_op(plain, plain, given, settings={"scale": 0.5})
    assert [row.name for row in report.rows] == ["out0", "d_weight"]


@torch.library.custom_op("vtfast_tests::doubled", mutates_args=())
def doubled(x: Tensor) -> Tensor:
    return x * 2


@doubled.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[0] + 1)


def test_opcheck_of_an_operator() -> None:
    given = {"x": torch.randn(5)}

    def detached(x: Tensor) -> Tensor:
        return doubled(x.detach()) + 0 * x

    options = {"reference": lambda x: 2 * x.detach() + 0 * x, "inputs": given, "operators": [doubled]}
    fault = fault_of(detached, "opcheck", **options)
    assert fault.startswith("vtfast_tests.doubled.default: OpCheckError")
    assert "is never called" in fault_of(lambda x: 2 * x.detach() + 0 * x, "opcheck", **options)


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        ({"fn": 3}, TypeError, "fn must be callable, got int"),
        ({"inputs": (torch.ones(1),)}, TypeError, "inputs must be a mapping of names to tensors, .* got tuple"),
        ({"inputs": {"x": torch.ones(1, dtype=torch.int)}}, ValueError, "must hold a floating tensor, got x"),
        ({"settings": {"x": 3}}, ValueError, "inputs and settings must have no name in common, got x"),
        ({"settings": 3}, TypeError, "settings must be a mapping of names to values, got int"),
        ({"terms": {"d_y": 1.0}}, ValueError, "terms must be among out0, d_x, d_weight, got d_y"),
        ({"grads_out": torch.ones(7, 5)}, TypeError, "grads_out must be a tuple of tensors or None, got Tensor"),
        ({"grads_out": (torch.ones(5),)}, ValueError, r"grads_out must have shapes \[\(7, 5\)\], got \[\(5,\)\]"),
        ({"operators": ["vtfast::x"]}, TypeError, "operators must be given as .* got str"),
        ({"nan": "x"}, TypeError, "nan must be a bool or names of inputs, got 'x'"),
    ],
)
def test_bad_arguments(changed: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        check_op(**({"fn": plain, "reference": plain, "inputs": inputs()} | changed))
