"""Maps of tokens laid over the frames they stand for."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vtfast.visual.colours import viridis

__all__ = ["Scale", "overlay"]

# Less than a percent of difference is shown as none.
_LEAST_SPAN = 0.01


@dataclass(frozen=True)
class Scale:
    """Which values have the darkest and the brightest colour.

    Args:
        low: the value of the darkest.
        high: the value of the brightest.
    """

    low: float
    high: float

    @classmethod
    def of(cls, values: Tensor) -> "Scale":
        """From the least to the largest value of a map."""
        low, high = float(values.min()), float(values.max())
        return cls(low, max(high, low + _LEAST_SPAN))


def overlay(
    frames: Tensor,  # [T, H, W, 3]
    values: Tensor,  # [T, H', W']
    scale: Scale,
    *,
    opacity: float = 0.6,
) -> Tensor:  # [T, H, W, 3]
    """The frames in grey under the colours of a map, which is stretched to their size.

    Args:
        frames: uint8 RGB frames.
        values: one value a token; a token covers an even part of the frame.
        scale: the values of the darkest and the brightest colour.
        opacity: of the colours, in [0, 1].

    Returns:
        uint8 RGB frames.
    """
    if frames.dtype != torch.uint8 or frames.dim() != 4 or frames.shape[-1] != 3:
        raise ValueError(f"frames must be uint8 (T, H, W, 3), got {frames.dtype} {tuple(frames.shape)}")
    if values.dim() != 3 or len(values) != len(frames):
        raise ValueError(f"values must be ({len(frames)}, H', W'), one map a frame, got {tuple(values.shape)}")
    stretched = F.interpolate(values.float()[:, None], frames.shape[1:3], mode="bilinear", align_corners=False)[:, 0]
    colours = viridis((stretched - scale.low) / (scale.high - scale.low))
    grey = frames.float() @ torch.tensor([0.299, 0.587, 0.114], device=frames.device) / 255  # luma of BT.601
    mixed = torch.lerp(grey.unsqueeze(-1).expand_as(colours), colours, opacity)
    return (mixed * 255).round().to(torch.uint8)
