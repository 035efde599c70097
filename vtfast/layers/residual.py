"""The residual connection of a transformer block."""

from collections.abc import Callable

import torch
from torch import Tensor

from vtfast.layers.stochastic_depth import StochasticDepth


def residual_add(
    x: Tensor,  # [B, ..., C]
    branch: Tensor,  # [B, ..., C]
    drop_path: StochasticDepth,
    layer_scale: Tensor | None = None,  # [C]
) -> Tensor:  # [B, ..., C]
    """The sum of `x` and `branch`, the branch scaled by channel if asked to and under stochastic depth."""
    scale = None if layer_scale is None else layer_scale.to(branch.dtype)
    if drop_path.active:
        sample_scale = drop_path.sample_scale(branch)
        scale = sample_scale if scale is None else sample_scale * scale
    if scale is None:
        return x + branch
    if x.dtype != branch.dtype:
        return x + branch * scale
    return torch.addcmul(x, branch, scale)


def add_branch(
    x: Tensor,  # [B, ..., C]
    branch: Callable[..., Tensor],
    normed: Tensor,  # [B, ..., C]
    drop_path: StochasticDepth,
    layer_scale: Tensor | None = None,  # [C]
) -> Tensor:  # [B, ..., C]
    """`residual_add` of `branch(normed)`; a branch neither scaled nor dropped adds `x` itself, as `residual`."""
    if drop_path.active or layer_scale is not None:
        return residual_add(x, branch(normed), drop_path, layer_scale)
    return branch(normed, residual=x)
