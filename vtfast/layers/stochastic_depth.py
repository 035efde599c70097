"""Stochastic depth: in training, a residual branch is left out for some samples.

Source: Huang et al., "Deep Networks with Stochastic Depth", 2016.
"""

from torch import Tensor, nn


class StochasticDepth(nn.Module):
    """Zeroes whole samples with probability `rate` and scales the others by 1 / (1 - rate); identity in evaluation.

    Args:
        rate: probability of dropping a sample, in [0, 1].

    Raises:
        ValueError: `rate` is outside [0, 1].
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0.0 <= rate <= 1.0:
            raise ValueError(f"rate must be between 0 and 1, got {rate}")
        self.rate = rate

    @property
    def active(self) -> bool:
        """Whether samples may be dropped: in training, at a rate above zero."""
        return self.training and self.rate > 0.0

    def forward(
        self,
        x: Tensor,  # [B, ...]
    ) -> Tensor:  # [B, ...]
        return x * self.sample_scale(x) if self.active else x

    def sample_scale(
        self,
        x: Tensor,  # [B, ...]
    ) -> Tensor:  # [B, 1, ...], 0 or 1 / (1 - rate)
        """One random factor a sample, in the dtype of `x`."""
        keep = 1.0 - self.rate
        kept = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(keep)
        return kept / keep if keep > 0.0 else kept

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


class PositionStochasticDepth(StochasticDepth):
    """Zeroes token positions, each in all samples and frames at once, as the published code of UniFormerV2 does.

    That code drops along the first dimension of tensors (positions, samples, channels), which is meant for samples.
    """

    def sample_scale(
        self,
        x: Tensor,  # [..., N, C]
    ) -> Tensor:  # [N, 1], 0 or 1 / (1 - rate)
        """One random factor a position, in the dtype of `x`."""
        return super().sample_scale(x.new_empty(x.shape[-2], 1))
