"""Self-attention inside shifted 3D windows, as a layer.

Source: Liu et al., "Video Swin Transformer", 2022, section 3.2.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vtfast.layers.linear import linear
from vtfast.ops._arguments import triple
from vtfast.ops.window_attention import window_attention


class WindowAttention3d(nn.Module):
    """Multi-head self-attention of each token with the tokens of its window, under a relative position bias.

    A grid that is no larger than the window along an axis shrinks the window to itself there and is not shifted. A
    grid that the window does not divide is padded with zero tokens, which take part (their q, k and v are the
    projection's bias), without a padded copy.

    Args:
        dim: channels.
        num_heads: number of attention heads; divides `dim`.
        window: window (T, H, W), in tokens.
        shift: cyclic shift (T, H, W), in tokens, smaller than the window.
        dropout: probability of dropping a value of the output, in training.
        shrunk_window_bias: how a shrunk window reads the bias table, "upstream" (as the published weights were
            trained) or "corrected" (true offsets); see `vtfast.ops.window_attention`.

    Raises:
        ValueError: `num_heads` does not divide `dim`, or a window or shift is out of range.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window: int | Sequence[int],
        shift: int | Sequence[int] = 0,
        *,
        dropout: float = 0.0,
        shrunk_window_bias: str = "upstream",
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"num_heads must divide dim = {dim}, got {num_heads}")
        if shrunk_window_bias not in ("upstream", "corrected"):
            raise ValueError(f"shrunk_window_bias must be upstream or corrected, got {shrunk_window_bias!r}")
        self.num_heads = num_heads
        self.window = triple(window, "window", 1)
        self.shift = triple(shift, "shift", 0)
        if any(s >= w for s, w in zip(self.shift, self.window, strict=True)):
            raise ValueError(f"shift must be smaller than window = {self.window}, got {self.shift}")
        self.dropout = dropout
        self.shrunk_window_bias = shrunk_window_bias
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        offsets_t, offsets_h, offsets_w = (2 * size - 1 for size in self.window)
        table = torch.zeros(offsets_t * offsets_h * offsets_w, num_heads)
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))

    def forward(
        self,
        x: Tensor,  # [B, T, H, W, C]
        residual: Tensor | None = None,  # [B, T, H, W, C], added to the result
    ) -> Tensor:  # [B, T, H, W, C]
        out = window_attention(
            linear(x, self.qkv),
            num_heads=self.num_heads,
            window=self.window,
            shift=self.shift,
            bias_table=self.relative_position_bias_table,
            pad_qkv=self.qkv.bias,
            shrunk_bias=self.shrunk_window_bias,
        )
        return linear(out, self.proj, dropout=self.dropout if self.training else 0.0, residual=residual)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, window={self.window}, shift={self.shift}"
