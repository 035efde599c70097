"""Pooling of the tokens of a grid, as a layer.

Source: Fan et al., "Multiscale Vision Transformers", 2021, section 3.1.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vtfast.ops import TokenPool, pool_tokens, pooled_grid
from vtfast.ops._arguments import Triple, triple
from vtfast.ops.pool_tokens import MODES

EPS = 1e-6  # of all norms of an MViT


class TokenPooling(nn.Module):
    """Pools the tokens of a grid, with a padding of `kernel // 2`; the tokens before them (cls) stay.

    A convolution has weights and a LayerNorm behind it, which also normalises the prefix; "avg" and "max" have neither.

    Args:
        kernel: size of the pooling window (T, H, W), in tokens.
        stride: distance between windows (T, H, W), in tokens.
        mode: "conv" (depthwise), "avg" or "max".
        channels: of the convolution and its norm. Those of a head: all heads share them.

    Raises:
        ValueError: an unknown mode, or a kernel or stride out of range.
    """

    def __init__(
        self, kernel: int | Sequence[int], stride: int | Sequence[int] = 1, *, mode: str = "conv", channels: int = 0
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
        self.kernel, self.stride, self.mode = triple(kernel, "kernel", 1), triple(stride, "stride", 1), mode
        self.register_parameter("weight", None)
        self.norm = None
        if mode == "conv":
            self.weight = nn.Parameter(torch.empty(channels, 1, *self.kernel))
            nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # as nn.Conv3d
            self.norm = nn.LayerNorm(channels, eps=EPS)

    def forward(
        self,
        x: Tensor,  # [B, P + T*H*W, C]
        grid: Triple,
        *,
        num_heads: int = 1,
        num_prefix: int = 0,
    ) -> Tensor:  # [B, P + T'*H'*W', C]
        pool = self.pool()._asdict()
        return pool_tokens(x, grid, **pool, eps=EPS, num_heads=num_heads, num_prefix=num_prefix)

    def pool(self) -> TokenPool:
        """The arguments of `vtfast.ops.pool_tokens`."""
        norm_weight, norm_bias = (None, None) if self.norm is None else (self.norm.weight, self.norm.bias)
        return TokenPool(self.kernel, self.stride, self.mode, self.weight, norm_weight, norm_bias)

    def grid(self, grid: Triple) -> Triple:
        """Size of `grid` after pooling."""
        return pooled_grid(grid, self.kernel, self.stride)

    def extra_repr(self) -> str:
        return f"kernel={self.kernel}, stride={self.stride}, mode={self.mode}"
