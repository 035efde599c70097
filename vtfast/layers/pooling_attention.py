"""Self-attention of pooled queries on pooled keys and values, as a layer.

Source: Fan et al., "Multiscale Vision Transformers", 2021, section 3.1; Li et al., "MViTv2: Improved Multiscale Vision
Transformers for Classification and Detection", 2022, section 4.1.
"""

import torch
from torch import Tensor, nn

from vtfast.layers.axis_resize import resize_axis
from vtfast.layers.linear import linear
from vtfast.layers.token_pooling import EPS, TokenPooling
from vtfast.ops import pool_qkv, pooling_attention
from vtfast.ops._arguments import Triple

MODES = ("conv", "conv_unshared", "avg", "max")


class PoolingAttention(nn.Module):
    """Multi-head self-attention whose queries, keys and values are pooled over the token grid.

    Queries, or keys and values, whose kernel and stride are all 1 are not pooled, and not normalised either.

    Args:
        dim: channels of the input.
        num_heads: number of attention heads.
        dim_out: channels of queries, keys, values and the result; `dim` if None.
        q_kernel: pooling window of the queries (T, H, W), in tokens.
        q_stride: distance between those windows.
        kv_kernel: pooling window of keys and values.
        kv_stride: distance between those windows.
        mode: "conv", a depthwise convolution whose weights all heads share; "conv_unshared", the same with weights
            for every channel, which needs `pool_first`; "avg"; "max". A LayerNorm follows convolutions only.
        pool_first: whether the tokens are pooled before they are projected, each by a linear layer of its own; else q,
            k and v are pooled, out of one packed projection.
        rel_pos_sizes: the longer side of the grids of queries and keys along (T, H, W) that relative positions are
            learned for; none along an axis with 0. For other grids they are interpolated.
        residual: whether the pooled queries are added to the result.
        residual_prefix: whether those of the prefix are, too; implies `residual`.
        qkv_bias: whether the projections to q, k and v have a bias.
        dropout: probability of dropping a value of the output, in training.

    Raises:
        ValueError: `num_heads` does not divide the channels, an unknown mode, "conv_unshared" without `pool_first`, or
            a kernel or stride out of range.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        dim_out: int | None = None,
        q_kernel: Triple = (1, 1, 1),
        q_stride: Triple = (1, 1, 1),
        kv_kernel: Triple = (1, 1, 1),
        kv_stride: Triple = (1, 1, 1),
        mode: str = "conv",
        pool_first: bool = False,
        rel_pos_sizes: Triple = (0, 0, 0),
        residual: bool = False,
        residual_prefix: bool = False,
        qkv_bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        dim_out = dim if dim_out is None else dim_out
        for name, channels in {"dim_out": dim_out, "dim": dim if pool_first else dim_out}.items():
            if num_heads < 1 or channels % num_heads:
                raise ValueError(f"num_heads must divide {name} = {channels}, got {num_heads}")
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
        if mode == "conv_unshared" and not pool_first:
            raise ValueError("mode must be another than 'conv_unshared' without pool_first")
        self.num_heads = num_heads
        self.pool_heads = 1 if mode == "conv_unshared" else num_heads
        self.pool_first = pool_first
        self.residual, self.residual_prefix = residual, residual_prefix
        self.dropout = dropout
        if pool_first:
            self.q, self.k, self.v = (nn.Linear(dim, dim_out, bias=qkv_bias) for _ in range(3))
        else:
            self.qkv = nn.Linear(dim, 3 * dim_out, bias=qkv_bias)
        channels = (dim if pool_first else dim_out) // self.pool_heads
        self.pool_q = _pooling(q_kernel, q_stride, mode, channels)
        self.pool_k = _pooling(kv_kernel, kv_stride, mode, channels)
        self.pool_v = _pooling(kv_kernel, kv_stride, mode, channels)
        head_dim = dim_out // num_heads
        self.rel_pos_t, self.rel_pos_h, self.rel_pos_w = (_relative_positions(size, head_dim) for size in rel_pos_sizes)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(
        self,
        x: Tensor,  # [B, P + T*H*W, C]
        grid: Triple,
        *,
        num_prefix: int = 1,
        residual: Tensor | None = None,  # as the result, to which it is added
    ) -> Tensor:  # [B, P + T'*H'*W', C'] with (T', H', W') = self.q_grid(grid)
        pooled = self._pool_tokens(x, grid, num_prefix) if self.pool_first else self._pool_qkv(x, grid, num_prefix)
        q_grid, k_grid = self.q_grid(grid), _pooled_grid(self.pool_k, grid)
        rel_pos_t, rel_pos_h, rel_pos_w = (
            None if table is None else resize_axis(table, 0, 2 * max(sizes) - 1)
            for table, *sizes in zip((self.rel_pos_t, self.rel_pos_h, self.rel_pos_w), q_grid, k_grid, strict=True)
        )
        out = pooling_attention(
            *pooled,
            q_grid,
            k_grid,
            num_heads=self.num_heads,
            rel_pos_t=rel_pos_t,
            rel_pos_h=rel_pos_h,
            rel_pos_w=rel_pos_w,
            residual=self.residual,
            residual_prefix=self.residual_prefix,
            num_prefix=num_prefix,
        )
        return linear(out, self.proj, dropout=self.dropout if self.training else 0.0, residual=residual)

    def q_grid(self, grid: Triple) -> Triple:
        """Size of the grid of the queries, and of the result, for tokens of `grid`."""
        return _pooled_grid(self.pool_q, grid)

    def _pool_qkv(
        self,
        x: Tensor,  # [B, P + T*H*W, C]
        grid: Triple,
        num_prefix: int,
    ) -> tuple[Tensor, Tensor, Tensor]:  # each [B, P + T'*H'*W', C']
        q, k, v = (None if layer is None else layer.pool() for layer in (self.pool_q, self.pool_k, self.pool_v))
        qkv = linear(x, self.qkv)
        return pool_qkv(qkv, grid, num_heads=self.num_heads, q=q, k=k, v=v, eps=EPS, num_prefix=num_prefix)

    def _pool_tokens(
        self,
        x: Tensor,  # [B, P + T*H*W, C]
        grid: Triple,
        num_prefix: int,
    ) -> tuple[Tensor, Tensor, Tensor]:  # each [B, P + T'*H'*W', C']
        def project(pool: TokenPooling | None, layer: nn.Linear) -> Tensor:
            pooled = x if pool is None else pool(x, grid, num_heads=self.pool_heads, num_prefix=num_prefix)
            return linear(pooled, layer)

        return project(self.pool_q, self.q), project(self.pool_k, self.k), project(self.pool_v, self.v)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, residual={self.residual}, residual_prefix={self.residual_prefix}"


def _pooling(kernel: Triple, stride: Triple, mode: str, channels: int) -> TokenPooling | None:
    if kernel == stride == (1, 1, 1):
        return None
    return TokenPooling(kernel, stride, mode="conv" if mode == "conv_unshared" else mode, channels=channels)


def _relative_positions(size: int, head_dim: int) -> nn.Parameter | None:  # [2 * size - 1, head_dim]
    if size == 0:
        return None
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(2 * size - 1, head_dim), std=0.02))


def _pooled_grid(pool: TokenPooling | None, grid: Triple) -> Triple:
    return grid if pool is None else pool.grid(grid)
