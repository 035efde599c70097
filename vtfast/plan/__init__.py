"""A cost model: what work costs, how long it takes on a machine, and what fits in its memory."""

from vtfast.plan.cost import Call, Cost, OperatorCost
from vtfast.plan.counter import count

__all__ = ["Call", "Cost", "OperatorCost", "count"]
