"""A cost model: what work costs, how long it takes on a machine, and what fits in its memory."""

from vtfast.plan.cost import Call, Cost, OperatorCost
from vtfast.plan.counter import count
from vtfast.plan.estimate import Estimate, estimate
from vtfast.plan.limits import Limits
from vtfast.plan.machines import GPUS, Machine, gpu
from vtfast.plan.memory import Peak
from vtfast.plan.planning import Plan, Step, plan

__all__ = [
    "GPUS",
    "Call",
    "Cost",
    "Estimate",
    "Limits",
    "Machine",
    "OperatorCost",
    "Peak",
    "Plan",
    "Step",
    "count",
    "estimate",
    "gpu",
    "plan",
]
