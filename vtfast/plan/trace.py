"""The operators and the memory of a model's forward or training step, without computing anything."""

import contextlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from vtfast import _library
from vtfast._backend import use_backend
from vtfast.models import create_model
from vtfast.ops._arguments import as_if_unobserved
from vtfast.plan.cost import Call, Cost
from vtfast.plan.counter import OperatorCounter
from vtfast.plan.memory import LiveMemory, Peak

__all__ = ["DTYPES", "MODES", "OPTIMIZERS", "Clip", "FakeInitialisation", "Trace", "Work", "trace"]

Clip = tuple[int, int, int, int, int]

# Of weights and clips; under autocast they stay float32 and products run in bfloat16.
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "autocast": torch.float32,
}
MODES = ("inference", "training", "checkpointing")

# Numbers that an optimiser keeps for each parameter.
OPTIMIZERS = {"none": 0, "sgd": 1, "adamw": 2}


@dataclass(frozen=True)
class Work:
    """One step of a model.

    Args:
        model: name in the registry.
        clip: (B, C, T, H, W).
        dtype: one of `DTYPES`.
        mode: "inference"; "training", forward, loss and backward; or "checkpointing", training in which the backward
            recomputes each block.
        optimizer: one of `OPTIMIZERS`: whose states take memory and whose update ends the training step; SGD's has a
            momentum.
        on_gpu: whether it runs on a GPU; on a CPU, layers are fused.
        config: options of the model that differ from the published ones.
    """

    model: str
    clip: Clip
    dtype: str = "float32"
    mode: str = "inference"
    optimizer: str = "none"
    on_gpu: bool = True
    config: tuple[tuple[str, Any], ...] = ()

    @property
    def trains(self) -> bool:
        """Whether there is a backward."""
        return self.mode != "inference"


@dataclass(frozen=True)
class Trace:
    """What a step costs and holds.

    Args:
        cost: its operators.
        peak: its memory where that is largest.
        gradient_bytes: of all parameters that are trained.
        backward_from: index of the first operator of the backward.
    """

    cost: Cost
    peak: Peak
    gradient_bytes: int = 0
    backward_from: int = 0


@lru_cache(maxsize=512)
def trace(work: Work) -> Trace:
    """Runs the step on fake tensors, as compiled kernels would run it.

    Raises:
        RuntimeError: this installation has no compiled kernels, whose operators are to be traced.
        ValueError: the model does not exist or refuses the clip; an option is out of range.
    """
    for name, value, allowed in (
        ("dtype", work.dtype, DTYPES), ("mode", work.mode, MODES), ("optimizer", work.optimizer, OPTIMIZERS),
    ):  # fmt: skip
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    missing = _library.why_unavailable()
    if missing is not None:
        raise RuntimeError(f"the cost model follows the compiled operators, and there are none: {missing}")
    mode, model = _model(work.model, work.dtype, work.config)
    with mode, use_backend("native"), torch.random.fork_rng(devices=[]):
        return _trace(work, model)


@lru_cache(maxsize=4)
def _model(name: str, dtype: str, config: tuple[tuple[str, Any], ...]) -> tuple[FakeTensorMode, nn.Module]:
    mode, before = FakeTensorMode(), torch.get_default_dtype()
    # Fake weights cannot be converted afterwards: torch tells no fake tensor from one that others refer to.
    torch.set_default_dtype(DTYPES[dtype])
    try:
        with mode, FakeInitialisation():
            return mode, create_model(name, **dict(config))
    finally:
        torch.set_default_dtype(before)


def _trace(work: Work, model: nn.Module) -> Trace:
    model.train(work.trains)
    model.set_grad_checkpointing(work.mode == "checkpointing")  # type: ignore[operator]
    model.zero_grad()
    clip = torch.empty(work.clip, dtype=DTYPES[work.dtype])
    memory = LiveMemory(model, clip)
    counter = _Follower(memory)
    fused = contextlib.nullcontext() if work.on_gpu else as_if_unobserved(FakeTensor)
    # Fake CPU tensors stand for a GPU's, whose autograd would want a GPU.
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=work.dtype == "autocast")
    backward_from = 0
    try:
        with fused, counter:
            if work.trains:
                with autocast:
                    out = model(clip)
                loss = _loss(out)
                del out
                memory.part, backward_from = "workspace", len(counter.calls)
                loss.backward()
            else:
                with torch.no_grad(), autocast:
                    model(clip)
    finally:
        memory.close()
        model.zero_grad()
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad) if work.trains else 0
    states = OPTIMIZERS[work.optimizer] * trained
    calls = counter.calls
    if states:
        # Reads weights, gradients and states, writes weights and states, in one pass.
        calls.append(
            Call(f"optimizer::{work.optimizer}", "float32", read=2 * trained + states, written=trained + states)
        )
    peak = memory.peak
    return Trace(
        Cost(tuple(calls)),
        Peak(peak.weights, peak.gradients, states, peak.clip, peak.activations, peak.workspace),
        trained,
        backward_from,
    )


def _loss(out: Any) -> Tensor:
    """Cross entropy; the mean over the results where a model has several in training."""
    heads = out if isinstance(out, (tuple, list)) else (out,)
    losses = [F.cross_entropy(logits.float(), torch.zeros(len(logits), dtype=torch.long)) for logits in heads]
    return torch.stack(losses).mean() if len(losses) > 1 else losses[0]


class _Follower(OperatorCounter):
    """Counts, and follows the memory of the results."""

    def __init__(self, memory: LiveMemory) -> None:
        super().__init__()
        self._memory = memory

    def call(self, func: OpOverload[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Makes a call; oneDNN's product with a second operand has no rule for fake tensors."""
        if func is torch.ops.mkldnn._linear_pointwise.binary:
            return args[0].new_empty(args[1].shape)
        return func(*args, **kwargs)

    def after(self, func: OpOverload[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Notes a call that has been made."""
        super().after(func, args, kwargs, out)
        self._memory.after(out)


class FakeInitialisation(TorchDispatchMode):
    """Answers what the initialisation of fake weights asks for: no sample is out of range."""

    def __torch_dispatch__(
        self, func: OpOverload[Any, Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return False
        return func(*args, **(kwargs or {}))
