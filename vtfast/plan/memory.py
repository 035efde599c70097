"""The memory that a piece of work holds, followed storage by storage."""

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

__all__ = ["LiveMemory", "Peak"]

# Whoever allocates for kernels, torch on a GPU and on a CPU, hands out multiples of this.
_GRAIN = 512


@dataclass(frozen=True)
class Peak:
    """Bytes of each part of the memory at the moment when most is held.

    Args:
        weights: parameters and buffers.
        gradients: of parameters.
        optimizer: states of the optimiser.
        clip: the input.
        activations: what the forward keeps for the backward; in inference all that is alive.
        workspace: what the backward, or an operator, holds for a while.
    """

    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    clip: int = 0
    activations: int = 0
    workspace: int = 0

    @property
    def total(self) -> int:
        """Of all parts."""
        return self.weights + self.gradients + self.optimizer + self.clip + self.activations + self.workspace

    @property
    def beyond_inputs(self) -> int:
        """What the work adds to the weights, the states of the optimiser and the clip, which were there before."""
        return self.gradients + self.activations + self.workspace


class LiveMemory:
    """Follows storages from the operator that makes them until the last tensor on them is gone.

    Args:
        model: whose parameters and buffers are the weights.
        clip: the input.
    """

    def __init__(self, model: nn.Module, clip: Tensor) -> None:
        self._held: dict[str, int] = {}
        self._parts: dict[int, str] = {}
        self._finalizers: dict[int, Any] = {}
        self._peak: dict[str, int] = {}
        self._peak_total = 0
        self.part = "activations"
        self._follow([*model.parameters(), *model.buffers()], "weights")
        self._follow([clip], "clip")
        self._hooks = [
            p.register_post_accumulate_grad_hook(self._has_gradient) for p in model.parameters() if p.requires_grad
        ]

    @property
    def peak(self) -> Peak:
        """The parts when most was held so far."""
        return Peak(**self._peak)

    def after(self, out: Any) -> None:
        """Takes in the results of an operator, as part of what `self.part` names."""
        self._follow((leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)), self.part)

    def close(self) -> None:
        """Follows nothing any more."""
        for hook in self._hooks:
            hook.remove()
        for finalizer in self._finalizers.values():
            finalizer.detach()

    def _follow(self, tensors: Iterable[Tensor], part: str) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self._parts:
                continue
            size = -(-storage.nbytes() // _GRAIN) * _GRAIN
            self._parts[key] = part
            self._finalizers[key] = weakref.finalize(storage, self._forget, key, size)
            self._add(part, size)

    def _has_gradient(self, parameter: Tensor) -> None:
        gradient = parameter.grad
        if gradient is None:
            return
        storage = gradient.untyped_storage()
        self._follow([gradient], "gradients")
        before, self._parts[storage._cdata] = self._parts[storage._cdata], "gradients"
        size = -(-storage.nbytes() // _GRAIN) * _GRAIN
        self._held[before] -= size
        self._add("gradients", size)

    def _forget(self, key: int, size: int) -> None:
        self._held[self._parts.pop(key)] -= size
        del self._finalizers[key]

    def _add(self, part: str, size: int) -> None:
        self._held[part] = self._held.get(part, 0) + size
        total = sum(self._held.values())
        if total > self._peak_total:
            self._peak_total, self._peak = total, dict(self._held)
