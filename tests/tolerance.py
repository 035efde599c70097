"""The rule of vtfast/testing/accuracy.py as an assertion."""

from torch import Tensor

from vtfast.testing.accuracy import BACKWARD, FORWARD, accumulation_eps, measure

__all__ = ["BACKWARD", "FORWARD", "accumulation_eps", "assert_as_accurate"]


def assert_as_accurate(actual: Tensor, plain: Tensor, exact: Tensor, *, factor: int, terms: float, name: str) -> None:
    """Raises AssertionError where `actual` is farther from `exact` than the rule allows; `name` begins the message."""
    fault = measure(actual, plain, exact, factor=factor, terms=terms).fault
    assert fault is None, f"{name}: {fault}"
