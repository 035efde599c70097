"""What a piece of work costs: arithmetic, exponentials and memory traffic, operator by operator."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

__all__ = ["Call", "Cost", "OperatorCost"]


@dataclass(frozen=True)
class Call:
    """One call of one operator.

    Args:
        name: of the operator, as `aten::addmm`.
        dtype: of its data, as `float32`.
        products: floating point operations of matrix products, which matrix units do; two a multiplication and sum.
        vector: those of convolutions and poolings of single channels, which no matrix unit does.
        exps: exponentials, one a transcendental function.
        read: bytes of its inputs, each counted once.
        written: bytes of its results.
        lookups: entries of a small table that are looked up, as the bias of each pair in attention.
    """

    name: str
    dtype: str
    products: int = 0
    vector: int = 0
    exps: int = 0
    read: int = 0
    written: int = 0
    lookups: int = 0

    @property
    def flops(self) -> int:
        """Floating point operations on either kind of unit."""
        return self.products + self.vector

    @property
    def bytes(self) -> int:
        """The fewest bytes that move."""
        return self.read + self.written


@dataclass(frozen=True)
class OperatorCost:
    """All calls of one operator in one dtype.

    Args:
        name: of the operator, as `vtfast::grid_attention`.
        dtype: of its data, as `bfloat16`.
        calls: how many.
        flops: floating point operations of products, convolutions and poolings.
        exps: exponentials.
        bytes: the fewest that move, inputs and results of each call once.
    """

    name: str
    dtype: str
    calls: int
    flops: int
    exps: int
    bytes: int


@dataclass(frozen=True)
class Cost:
    """The calls that a piece of work made, in order."""

    calls: tuple[Call, ...]

    @property
    def flops(self) -> int:
        """Floating point operations of products, convolutions and poolings; elementwise arithmetic is not counted."""
        return sum(call.flops for call in self.calls)

    @property
    def exps(self) -> int:
        """Exponentials."""
        return sum(call.exps for call in self.calls)

    @property
    def bytes(self) -> int:
        """The fewest bytes that the operators move: the inputs and results of each, once."""
        return sum(call.bytes for call in self.calls)

    @cached_property
    def operators(self) -> tuple[OperatorCost, ...]:
        """The calls added up by operator and dtype, those that move most first."""
        groups: dict[tuple[str, str], list[Call]] = {}
        for call in self.calls:
            groups.setdefault((call.name, call.dtype), []).append(call)
        rows = (_total(name, dtype, calls) for (name, dtype), calls in groups.items())
        return tuple(sorted(rows, key=lambda row: (-row.bytes, row.name, row.dtype)))


def _total(name: str, dtype: str, calls: Iterable[Call]) -> OperatorCost:
    cost = Cost(tuple(calls))
    return OperatorCost(name, dtype, len(cost.calls), cost.flops, cost.exps, cost.bytes)
