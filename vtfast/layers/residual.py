"""The residual connection of a transformer block."""

from collections.abc import Callable

import torch
from torch import Tensor

from vtfast.layers.stochastic_depth import StochasticDepth


def residual_add(
    x: Tensor,  # [B, ..., C]
    branch: Tensor,  # [B, ..., C]
    drop_path: StochasticDepth,
) -> Tensor:  # [B, ..., C]
    """The sum of `x` and `branch`, the branch under stochastic depth."""
    if not drop_path.active:
        return x + branch
    if x.dtype != branch.dtype:
        return x + drop_path(branch)
    return torch.addcmul(x, branch, drop_path.sample_scale(branch))


def add_branch(
    x: Tensor,  # [B, ..., C]
    branch: Callable[..., Tensor],
    normed: Tensor,  # [B, ..., C]
    drop_path: StochasticDepth,
) -> Tensor:  # [B, ..., C]
    """`residual_add` of `branch(normed)`; the branch itself adds `x`, as `residual`, unless it may be dropped."""
    if drop_path.active:
        return residual_add(x, branch(normed), drop_path)
    return branch(normed, residual=x)
