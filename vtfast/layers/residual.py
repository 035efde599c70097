"""The residual connection of a transformer block, alone and together with the LayerNorm that follows it."""

from torch import Tensor, nn

from vtfast.layers.stochastic_depth import StochasticDepth


def residual_add(
    x: Tensor,  # [B, ..., C]
    branch: Tensor,  # [B, ..., C]
    drop_path: StochasticDepth,
) -> Tensor:  # [B, ..., C]
    """The sum of `x` and `branch`, the branch under stochastic depth."""
    return x + drop_path(branch)


def residual_add_norm(
    x: Tensor,  # [B, ..., C]
    branch: Tensor,  # [B, ..., C]
    drop_path: StochasticDepth,
    norm: nn.LayerNorm,
) -> tuple[Tensor, Tensor]:  # both [B, ..., C]
    """`residual_add` and the LayerNorm of its result: the new stream and the input of the next branch."""
    total = residual_add(x, branch, drop_path)
    return total, norm(total)
