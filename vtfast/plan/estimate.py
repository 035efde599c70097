"""The time of a piece of work on a machine, from its cost."""

from collections.abc import Iterable
from dataclasses import dataclass

from vtfast.plan.cost import Call
from vtfast.plan.machines import Machine
from vtfast.plan.shares import kind_of, share_of

__all__ = ["Estimate", "estimate"]

# What an operator moves within the last cache moves so much faster. It finds its inputs there, which the operator
# before has left, if it needs no more than half of the cache.
_CACHE_SPEED = 2.5


@dataclass(frozen=True)
class Estimate:
    """Predicted time.

    Args:
        seconds: in all.
        by_kind: seconds of each kind of operator.
        by_bound: seconds that go to "memory", "products", "vector", "exponentials" or "launches", whatever sets the
            time of an operator.
        host: seconds that issuing the operators takes; they are `seconds` where a GPU waits for them.
    """

    seconds: float
    by_kind: dict[str, float]
    by_bound: dict[str, float]
    host: float = 0.0


def estimate(calls: Iterable[Call], machine: Machine) -> Estimate:
    """The sum over operators; on a GPU no less than the host takes to issue them."""
    by_kind: dict[str, float] = {}
    by_bound: dict[str, float] = {}
    number = 0
    for call in calls:
        number += 1
        limits = _limits(call, machine)
        busiest = max(limits, key=lambda bound: limits[bound])
        seconds = (limits[busiest] if machine.is_gpu else sum(limits.values())) + machine.launch
        kind = kind_of(call)
        by_kind[kind] = by_kind.get(kind, 0.0) + seconds
        busiest = busiest if limits[busiest] > machine.launch else "launches"
        by_bound[busiest] = by_bound.get(busiest, 0.0) + seconds
    busy, host = sum(by_kind.values()), number * machine.host
    return Estimate(max(busy, host), by_kind, by_bound, host)


def _limits(call: Call, machine: Machine) -> dict[str, float]:
    """Seconds that each unit of the machine takes for a call."""
    share = share_of(call, machine)
    products = machine.products.get(call.dtype, machine.products["float32"])
    bandwidth = machine.copy * share.copy * (_CACHE_SPEED if 2 * call.bytes <= machine.cache else 1.0)
    return {
        "memory": call.bytes / bandwidth,
        "products": call.products / (products * share.products),
        "vector": call.vector / (machine.vector * share.vector),
        "exponentials": call.exps / (machine.exps * share.exps),
    }
