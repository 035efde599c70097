"""Predicts time and memory of a model on a machine."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vtfast.plan.estimate import Estimate, estimate
from vtfast.plan.limits import Limits, largest_clips
from vtfast.plan.machines import Machine
from vtfast.plan.memory import Peak
from vtfast.plan.parallel import all_reduce
from vtfast.plan.trace import MODES, Clip, Trace, Work, trace

__all__ = ["Plan", "Step", "plan"]


@dataclass(frozen=True)
class Step:
    """What is predicted of a forward or of a training step.

    Args:
        mode: "inference", "training" or "checkpointing".
        seconds: of a step.
        clips_per_second: on all GPUs.
        estimate: where the time goes on one GPU.
        all_reduce: seconds of the gradients' way between GPUs that the backward does not hide.
        memory: bytes by part when most is held.
        memory_held: the same in all, with what driver, libraries and allocator take.
        fits: whether that is there.
        flops: floating point operations.
        exps: exponentials.
        bytes: the fewest that the operators move.
    """

    mode: str
    seconds: float
    clips_per_second: float
    estimate: Estimate
    all_reduce: float
    memory: Peak
    memory_held: float
    fits: bool
    flops: int
    exps: int
    bytes: int

    @property
    def bound(self) -> str:
        """What most of the time goes to: "memory", "products", "vector", "exponentials" or "launches"."""
        if self.estimate.host >= self.estimate.busy:
            return "launches"
        return max(self.estimate.by_bound, key=lambda name: self.estimate.by_bound[name])


@dataclass(frozen=True)
class Plan:
    """What is predicted of a model.

    Args:
        model: name in the registry.
        clip: (B, C, T, H, W) of each GPU.
        dtype: "float32", "bfloat16", "float16" or "autocast".
        machine: where.
        gpus: how many, each with clips of its own.
        optimizer: "none", "sgd" or "adamw".
        inference: of the forward.
        training: of the training step, with activation checkpointing if that was asked for.
        limits: the largest clips that fit, by mode; empty if they were not asked for.
    """

    model: str
    clip: Clip
    dtype: str
    machine: Machine
    gpus: int
    optimizer: str
    inference: Step
    training: Step
    limits: Mapping[str, Limits]


def plan(
    model: str,
    clip: Clip,
    machine: Machine,
    *,
    dtype: str = "float32",
    checkpointing: bool = False,
    optimizer: str = "none",
    gpus: int = 1,
    limits: bool = False,
    **config: Any,
) -> Plan:
    """Predicts a forward and a training step of a model, without computing anything.

    The steps are traced on fake tensors, so that every operator is known with its sizes; each takes what the busiest
    unit of the machine needs for it, by the shares in `vtfast.plan.shares`. On GPUs these are assumptions.

    Args:
        model: name in the registry.
        clip: (B, C, T, H, W) of each GPU.
        machine: one of `GPUS`, or one of your own.
        dtype: "float32", "bfloat16", "float16", or "autocast": float32 weights, products in bfloat16.
        checkpointing: whether the training step recomputes each block in the backward.
        optimizer: "none", "sgd" (with momentum) or "adamw", for its states and its update.
        gpus: GPUs, data parallel, eight in a machine.
        limits: whether to search for the largest clips that fit, which takes some seconds.
        **config: options of the model that differ from the published ones.

    Raises:
        ValueError: there is no such model, it refuses the clip, or an option is out of range.
        RuntimeError: this installation has no compiled kernels.
    """
    if gpus < 1:
        raise ValueError(f"gpus must be at least 1, got {gpus}")
    options = tuple(sorted(config.items()))
    work = Work(model, clip, dtype, "inference", optimizer, machine.is_gpu, options)
    trained = replace(work, mode="checkpointing" if checkpointing else "training")
    inference, training = (_step(each, trace(each), machine, gpus) for each in (work, trained))
    found = {mode: largest_clips(replace(work, mode=mode), machine) for mode in MODES} if limits else {}
    return Plan(model, clip, dtype, machine, gpus, optimizer, inference, training, found)


def _step(work: Work, traced: Trace, machine: Machine, gpus: int) -> Step:
    calls = traced.cost.calls
    whole, exposed = estimate(calls, machine), 0.0
    if work.trains:
        backward = estimate(calls[traced.backward_from :], machine)
        exposed = all_reduce(traced.gradient_bytes, backward.seconds, gpus, machine).exposed
    seconds = whole.seconds + exposed
    held = machine.held(traced.peak.total)
    return Step(
        work.mode,
        seconds,
        gpus * work.clip[0] / seconds,
        whole,
        exposed,
        traced.peak,
        held,
        held <= machine.memory,
        traced.cost.flops,
        traced.cost.exps,
        traced.cost.bytes,
    )
