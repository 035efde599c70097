"""What all models share: a row of stages with a norm and a head behind it, and timm's verbs for them."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vtfast.layers import OverlappingPatchEmbed3d, PatchEmbed3d
from vtfast.layers.batch_norm import frozen_statistics
from vtfast.models.features import StageInfo, resolve_indices
from vtfast.models.preprocessing import Preprocessing


class Backbone(nn.Module):
    """A model on clips (B, C, T, H, W): patch embedding, stages, norm, head.

    A subclass makes `patch_embed`, the stages, `norm` and `head_drop`, in the order in which their weights are to be
    drawn, and calls `_add_head` behind them. It gives `forward_features`, `forward_intermediates` and `_pool`.
    """

    stages_name: ClassVar[str] = "stages"  # the attribute with the modules of the stages
    undecayed: ClassVar[tuple[str, ...]] = ()  # names in any module of what `no_weight_decay` gives

    global_pools: tuple[str, ...] = ("avg",)  # what `global_pool` may be; "" always
    preprocessing: Preprocessing | None = None
    pruned: tuple[str, ...] = ()  # beginnings of the names that `prune_intermediate_layers` has removed
    grad_checkpointing: bool = False
    patch_embed: PatchEmbed3d | OverlappingPatchEmbed3d
    norm: nn.Module
    head_drop: nn.Module
    head: nn.Module
    stage_info: tuple[StageInfo, ...]
    num_features: int  # channels of the head's input
    num_classes: int  # 0 for no head
    global_pool: str

    def _add_head(self, stage_info: Sequence[StageInfo], num_classes: int, global_pool: str) -> None:
        """Sets the attributes that describe the stages, and the head."""
        self.stage_info = tuple(stage_info)
        self.num_features = self.stage_info[-1].channels
        self.global_pool = global_pool
        self.reset_classifier(num_classes, global_pool)

    def forward(
        self,
        clip: Tensor,  # [B, C, T, H, W]
    ) -> Tensor:  # [B, num_classes]
        return self.forward_head(self.forward_features(clip))

    def forward_features(
        self,
        clip: Tensor,  # [B, C, T, H, W]
    ) -> Tensor:  # [B, ..., num_features]
        """The tokens of the last stage, normalised, channels last."""
        raise NotImplementedError

    def forward_head(
        self,
        x: Tensor,  # [B, ..., num_features], from `forward_features`
        pre_logits: bool = False,
    ) -> Tensor:  # [B, num_classes]; without pooling [B, ..., num_classes]
        """Pooling and classifier; with `pre_logits` only the pooling."""
        if self.global_pool:
            x = self._pool(x)
        return x if pre_logits else self.head(self.head_drop(x))

    def forward_intermediates(
        self,
        clip: Tensor,  # [B, C, T, H, W]
        indices: Sequence[int] | None = None,
    ) -> list[Tensor]:  # each [B, C', T', H', W']
        """The output of the stages `indices` (all if None) as feature maps, before the final norm.

        Raises:
            ValueError: a stage that does not exist, stages out of order or none.
        """
        raise NotImplementedError

    def prune_intermediate_layers(self, indices: Sequence[int]) -> None:
        """Removes what the feature maps of the stages `indices` do not need: later stages, final norm, head.

        Raises:
            ValueError: a stage that does not exist, stages out of order or none.
        """
        last = resolve_indices(indices, len(self.stage_info))[-1]
        self.pruned = ("norm.", *self._remove_stages(last))
        self.norm = nn.Identity()
        self.num_features = self.stage_info[last].channels
        self.reset_classifier(0)

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the head by a new one on the device and in the dtype of the model.

        Args:
            num_classes: its classes, 0 for no head.
            global_pool: one of the model's `global_pools`, or "" for a head on every token; None keeps the present
                pooling.

        Raises:
            ValueError: an argument is out of range.
        """
        if num_classes < 0:
            raise ValueError(f"num_classes must be at least 0, got {num_classes}")
        if global_pool not in (None, "", *self.global_pools):
            wanted = ", ".join(map(repr, self.global_pools))
            raise ValueError(f"global_pool must be {wanted} or '', got {global_pool!r}")
        self.global_pool = self.global_pool if global_pool is None else global_pool
        self.num_classes = num_classes
        self.head = nn.Identity()
        if num_classes:
            weight = next(self.parameters())
            head = nn.Linear(self.num_features, num_classes, device=weight.device, dtype=weight.dtype)
            self._init_head(head)
            self.head = head

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recomputes the blocks in the backward instead of keeping their activations."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that training leaves out of weight decay (biases and norms aside)."""
        return {name for name, _ in self.named_parameters() if name.rpartition(".")[2] in self.undecayed}

    def _stage_end(self, stage: int) -> int:
        """How many of the modules named `stages_name` belong to this stage and those before it."""
        return stage + 1

    def _remove_stages(self, behind: int) -> tuple[str, ...]:
        """Removes the stages behind that one; returns the beginnings of their parameters' names."""
        modules, kept = getattr(self, self.stages_name), self._stage_end(behind)
        setattr(self, self.stages_name, modules[:kept])
        return tuple(f"{self.stages_name}.{i}." for i in range(kept, len(modules)))

    def _pool(
        self,
        x: Tensor,  # [B, ..., num_features]
    ) -> Tensor:  # [B, num_features]
        """What the head sees with the present `global_pool`, which is not ""."""
        raise NotImplementedError

    def _init_head(self, head: nn.Linear) -> None:
        init_linear(head)


def init_linear(module: nn.Module) -> None:
    """Draws the weights of a linear layer as vision transformers do; for `nn.Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def normal_parameter(*shape: int) -> nn.Parameter:
    """Drawn as `init_linear` draws weights."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02))


def pair(value: int | Sequence[int], name: str) -> tuple[int, int]:
    """An int or a pair (H, W) of positive ints, as a pair."""
    wanted = f"{name} must be an int or two ints (H, W), each at least 1"
    values = tuple(value) if isinstance(value, (tuple, list, torch.Size)) else (value,) * 2
    if len(values) != 2 or not all(isinstance(v, int) and not isinstance(v, bool) for v in values):
        raise TypeError(f"{wanted}, got {value!r}")
    if min(values) < 1:
        raise ValueError(f"{wanted}, got {value!r}")
    return values[0], values[1]


def rising(rate: float, count: int) -> list[float]:
    """`count` values from 0 to `rate`, for stochastic depth."""
    return [rate * i / max(count - 1, 1) for i in range(count)]


def run_block(block: nn.Module, *inputs: Any, recompute: bool) -> Any:
    """The output of a block; with `recompute`, the backward computes its activations anew instead of keeping them.

    Running statistics of batch normalisation follow the first computation only.
    """
    if not recompute or not torch.is_grad_enabled():
        return block(*inputs)
    if torch.compiler.is_compiling():  # which takes no other contexts, and updates no statistics twice
        return checkpoint(block, *inputs, use_reentrant=False)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), frozen_statistics(block)

    return checkpoint(block, *inputs, use_reentrant=False, context_fn=contexts)
