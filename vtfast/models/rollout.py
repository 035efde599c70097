"""Attention rollout: which tokens of a clip the result of a model comes from, by its attention alone.

Source: Abnar & Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020, section 3,
https://arxiv.org/abs/2005.00928.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vtfast.models.attention import AttentionStep
from vtfast.ops.divided_attention import SCHEMES

__all__ = ["Rollout", "rollout"]

TIME_SCHEMES = ("time",)
SPACE_SCHEMES = ("space", "width", "height")


@dataclass(frozen=True)
class Rollout:
    """Shares of the tokens of a clip, each map summing to one over it; 1 / (T*H*W) is the share of an indifferent one.

    Args:
        cls: where cls comes from, through all steps.
        space: where cls comes from through the steps inside frames alone ("space", "width" and "height"); None
            without such steps.
        time: where all tokens together come from, each weighing the same, through the "time" steps alone; None
            without such steps. In the official model these stay at one place, so that every place has the same share
            and the map tells how its frames divide it.
    """

    cls: Tensor  # [B, T, H, W]
    space: Tensor | None  # [B, T, H, W]
    time: Tensor | None  # [B, T, H, W]


def rollout(steps: Sequence[AttentionStep], *, num_clips: int | None = None) -> Rollout:
    r"""Follows cls back through the attention of a model, head by head averaged.

    A step is taken as the matrix \(\frac12 (A + I)\), its attention and the residual connection around it, and only
    the row of cls of the product of all steps is ever computed. Tokens that a step leaves out stay what they are, as
    cls does in the official "time". A map is zero where cls attends to itself alone.

    Args:
        steps: of one run, as `record_attention` and `return_attention` give them; all, or those of a few blocks.
        num_clips: clips of the batch; needed where the frames are samples of their own (the attention type "space").

    Returns:
        The maps, at least float32.

    Raises:
        ValueError: there are no steps, or `num_clips` does not divide their batch.
    """
    if not steps:
        raise ValueError("steps must have at least one step, got none")
    weights = steps[0].weights
    samples, (frames, height, width) = weights.groups.shape[0], weights.grid
    clips = samples if num_clips is None else num_clips
    if clips < 1 or samples % clips:
        raise ValueError(f"num_clips must divide the batch of {samples}, got {num_clips}")
    dtype = torch.promote_types(weights.groups.dtype, torch.float32)
    cls = weights.groups.new_zeros((samples, 1 + frames * height * width), dtype=dtype)
    cls[:, 0] = 1

    def follow(schemes: Sequence[str], start: Tensor) -> Tensor:
        """`start`, [samples, 1 + T*H*W], back through the steps of some schemes, as a map [clips, T, H, W]."""
        shares = start[:, None]
        for step in reversed(steps):
            if step.scheme in schemes:
                shares = (shares + step.weights.trace_back(shares)) / 2
        on_grid = shares[:, 0, 1:].reshape(clips, -1, height, width)
        return on_grid / on_grid.sum(dim=(1, 2, 3), keepdim=True).clamp(min=1e-30)

    present = {step.scheme for step in steps}
    return Rollout(
        cls=follow(SCHEMES, cls),
        space=None if present.isdisjoint(SPACE_SCHEMES) else follow(SPACE_SCHEMES, cls),
        time=None if present.isdisjoint(TIME_SCHEMES) else follow(TIME_SCHEMES, 1 - cls),
    )
