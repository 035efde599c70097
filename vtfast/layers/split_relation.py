"""The block of UniFormer's late stages with attention over time and then over space.

Source: Li et al., "UniFormer: Unified Transformer for Efficient Spatiotemporal Representation Learning", 2022,
table 11, as the authors' code has it.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vtfast.layers.divided_attention import DividedAttention
from vtfast.layers.dynamic_position import add_positions
from vtfast.layers.global_relation import EPS, GlobalRelationBlock, grid_of
from vtfast.layers.residual import add_branch
from vtfast.ops._arguments import Triple


class SplitRelationBlock(GlobalRelationBlock):
    """A `GlobalRelationBlock` whose attention is one inside each frame, of tokens that have attended over time.

    As published, what attends over time is no part of the residual stream: the result of the attention in space is
    added to the tokens from before the attention over time. Stochastic depth drops the attention over time of single
    places and the attention in space of single frames.

    Args:
        dim: channels.
        num_heads: attention heads, of each attention.
        hidden_dim: channels between the layers of the MLP.
        qkv_bias: whether the projections to q, k and v have a bias.
        dropout: as in `GlobalRelationBlock`, after both attentions.
        **options: `drop_path_rate` and `layer_scale` as there; the attention over time has no factor.

    Raises:
        ValueError: `num_heads` does not divide `dim`.
    """

    scheme = "space"

    def __init__(
        self,
        dim: int,
        num_heads: int,
        hidden_dim: int,
        *,
        qkv_bias: bool = True,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(dim, num_heads, hidden_dim, qkv_bias=qkv_bias, dropout=dropout, **options)
        self.t_norm = nn.LayerNorm(dim, eps=EPS)
        self.t_attn = DividedAttention(dim, num_heads, "time", qkv_bias=qkv_bias, dropout=dropout)

    def forward(
        self,
        x: Tensor,  # [B, T, H, W, C]
    ) -> Tensor:  # [B, T, H, W, C]
        x = add_positions(x, self.pos_embed)
        batch, t, h, w, _ = x.shape
        over_time = self._attend(x, self.t_attn, self.t_norm(x), (batch, 1, h, w, 1))
        x = self._attend(x, self.attn, self.norm1(over_time), (batch, t, 1, 1, 1), self.gamma_1)
        return add_branch(x, self.mlp, self.norm2(x), self.drop_path, self.gamma_2)

    def init_time_attention(self) -> None:
        """Initial values as published, with which attention over time adds nothing.

        All are zero but the last projection's weights, which are one, so that gradients reach the first projection.
        """
        for parameter in (*self.t_attn.qkv.parameters(), self.t_attn.proj.bias):
            nn.init.zeros_(parameter)
        nn.init.ones_(self.t_attn.proj.weight)

    def _attend(
        self,
        x: Tensor,  # [B, T, H, W, C]
        attention: DividedAttention,
        normed: Tensor,  # [B, T, H, W, C]
        sequences: tuple[int, ...],
        layer_scale: Tensor | None = None,  # [C]
    ) -> Tensor:  # [B, T, H, W, C]
        """`add_branch`, where a random factor belongs to each of the `sequences` that attend for themselves."""
        settings: dict[str, Triple | int] = {"grid": grid_of(x), "num_prefix": 0}
        if not self.drop_path.active:
            return add_branch(x, partial(attention, **settings), normed, self.drop_path, layer_scale)
        branch = attention(normed, **settings)
        factor = self.drop_path.sample_scale(branch.new_empty(torch.Size(sequences).numel(), 1)).view(sequences)
        return x + branch * (factor if layer_scale is None else factor * layer_scale.to(branch.dtype))
