"""The time of a piece of work on a machine, from its cost."""

from collections.abc import Iterable
from dataclasses import dataclass

from vtfast.plan.cost import Call
from vtfast.plan.machines import Machine
from vtfast.plan.shares import kind_of, share_of

__all__ = ["Estimate", "estimate"]

# What an operator moves within the last cache moves so much faster. It finds its inputs there, which the operator
# before has left, if it needs no more than half of the cache; the shares of other kinds have it in them.
_CACHE_SPEED = 2.5
_CACHED = ("linear layers", "elementwise and norms")


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

    @property
    def busy(self) -> float:
        """Seconds that the machine computes."""
        return sum(self.by_kind.values())


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
    host = number * machine.host
    return Estimate(max(sum(by_kind.values()), host), by_kind, by_bound, host)


def _limits(call: Call, machine: Machine) -> dict[str, float]:
    """Seconds that each unit of the machine takes for a call."""
    share = share_of(call, machine)
    products = machine.products.get(call.dtype, machine.products["float32"])
    cached = 2 * call.bytes <= machine.cache and kind_of(call) in _CACHED
    bandwidth = machine.copy * share.copy * (_CACHE_SPEED if cached else 1.0)
    return {
        "memory": call.bytes / bandwidth,
        "products": call.products / (products * share.products),
        "vector": call.vector / (machine.vector * share.vector),
        # On a CPU, looking up an entry of a table takes about as long as an exponential. On a GPU another unit does it.
        "exponentials": (call.exps + (0 if machine.is_gpu else call.lookups)) / (machine.exps * share.exps),
    }
