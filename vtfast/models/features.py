"""A backbone that returns the feature maps of its stages: what `create_model(features_only=True)` gives."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

__all__ = ["FeatureExtractor", "StageInfo"]


@dataclass(frozen=True)
class StageInfo:
    """One feature map.

    Args:
        index: number of the stage.
        channels: channels of the map.
        reduction: frames and pixels per token along (T, H, W).
    """

    index: int
    channels: int
    reduction: tuple[int, int, int]


class FeatureExtractor(nn.Module):
    """Runs a model as far as the last stage asked for and returns one map (B, C, T, H, W) for each stage.

    What no map needs (later stages, final norm, head) is removed from the model, so that every parameter gets a
    gradient.

    Args:
        model: a model with `stage_info`, `forward_intermediates` and `prune_intermediate_layers`.
        out_indices: stages, ascending; negative ones count from the end. All if None.

    Raises:
        ValueError: a stage that does not exist, stages out of order or none.
    """

    def __init__(self, model: nn.Module, out_indices: Sequence[int] | None = None) -> None:
        super().__init__()
        stages: tuple[StageInfo, ...] = model.stage_info  # type: ignore[assignment]
        indices = resolve_indices(out_indices, len(stages))
        model.prune_intermediate_layers(indices)  # type: ignore[operator]
        self.model = model
        self.out_indices = indices
        self.feature_info = tuple(stages[index] for index in indices)

    def forward(
        self,
        clip: Tensor,  # [B, C, T, H, W]
    ) -> list[Tensor]:  # each [B, C', T', H', W']
        maps: list[Tensor] = self.model.forward_intermediates(clip, self.out_indices)  # type: ignore[operator]
        return maps

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recomputes the blocks in the backward instead of keeping their activations."""
        self.model.set_grad_checkpointing(enable)  # type: ignore[operator]


def resolve_indices(indices: Sequence[int] | None, num_stages: int) -> tuple[int, ...]:
    """Stage numbers from 0, all of them if None.

    Raises:
        ValueError: a stage that does not exist, stages out of order or none.
    """
    if indices is None:
        return tuple(range(num_stages))
    resolved = tuple(index + num_stages if index < 0 else index for index in indices)
    inside = all(0 <= index < num_stages for index in resolved)
    if not resolved or not inside or list(resolved) != sorted(set(resolved)):
        raise ValueError(f"out_indices must be ascending stages of 0 to {num_stages - 1}, got {tuple(indices)}")
    return resolved
