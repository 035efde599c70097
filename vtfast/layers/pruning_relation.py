"""The block of the light UniFormer's late stages: only the tokens that cls attends to most take part in attention.

Source: Xu et al., "Evo-ViT: Slow-Fast Token Evolution for Dynamic Vision Transformer", 2022, as the authors of
UniFormer use it.
"""

import torch
from torch import Tensor, nn

from vtfast.layers.depthwise_conv3d import DepthwiseConv3d
from vtfast.layers.dynamic_position import add_positions
from vtfast.layers.global_relation import EPS
from vtfast.layers.local_relation import layer_scales
from vtfast.layers.mlp import Mlp
from vtfast.layers.residual import residual_add
from vtfast.layers.scoring_attention import ScoringAttention
from vtfast.layers.stochastic_depth import StochasticDepth


class PruningRelationBlock(nn.Module):
    """Dynamic position embedding, then attention and MLP of cls, the best tokens and one that stands for the others.

    Tokens have scores: how much cls attended to them in the blocks before. The best are computed as ever ("slow"). Of
    the others the mean, weighted with the scores, takes part as one more token, and what attention and MLP add to that
    one is added to each of them ("fast"). Scores follow what cls attends to in this block. Nothing is kept between
    calls: scores come and go as tensors.

    Args:
        dim: channels.
        num_heads: attention heads.
        hidden_dim: channels between the layers of the MLP.
        keep: share of the tokens that take part, in (0, 1]; the count is rounded down.
        trade_off: share of this block's attention in the new scores, in [0, 1].
        qkv_bias: whether the projection to q, k and v has a bias.
        dropout: as in `GlobalRelationBlock`.
        drop_path_rate: stochastic depth of attention and MLP; it does not drop what the other tokens get.
        layer_scale: as in `GlobalRelationBlock`.

    Raises:
        ValueError: `keep` or `trade_off` is out of range, or `num_heads` does not divide `dim`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        hidden_dim: int,
        *,
        keep: float = 1.0,
        trade_off: float = 0.5,
        qkv_bias: bool = True,
        dropout: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        if not 0.0 < keep <= 1.0:
            raise ValueError(f"keep must be above 0 and at most 1, got {keep}")
        if not 0.0 <= trade_off <= 1.0:
            raise ValueError(f"trade_off must be between 0 and 1, got {trade_off}")
        self.keep, self.trade_off = keep, trade_off
        self.pos_embed = DepthwiseConv3d(dim, 3)
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = ScoringAttention(dim, num_heads, qkv_bias=qkv_bias, dropout=dropout)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = Mlp(dim, hidden_dim, dropout)
        self.drop_path = StochasticDepth(drop_path_rate)
        self.gamma_1, self.gamma_2 = layer_scales(dim, layer_scale)

    def forward(
        self,
        x: Tensor,  # [B, T, H, W, C]
        cls: Tensor,  # [B, 1, C]
        scores: Tensor | None = None,  # [B, T*H*W]; None in the first block, which takes all tokens
    ) -> tuple[Tensor, Tensor, Tensor]:  # as the inputs
        x = add_positions(x, self.pos_embed)
        tokens = x.flatten(1, 3)
        if self.keep == 1.0 or scores is None:
            tokens, cls, scores = self._take_all(tokens, cls, scores)
        else:
            tokens, cls, scores = self._prune(tokens, cls, scores)
        return tokens.view_as(x), cls, scores

    def _take_all(
        self,
        x: Tensor,  # [B, N, C]
        cls: Tensor,  # [B, 1, C]
        scores: Tensor | None,  # [B, N]
    ) -> tuple[Tensor, Tensor, Tensor]:  # as the inputs
        x, _, attention = self._transform(torch.cat([cls, x], dim=1))
        scores = attention if scores is None else torch.lerp(scores, attention, self.trade_off)
        return x[:, 1:], x[:, :1], scores

    def _prune(
        self,
        x: Tensor,  # [B, N, C]
        cls: Tensor,  # [B, 1, C]
        scores: Tensor,  # [B, N]
    ) -> tuple[Tensor, Tensor, Tensor]:  # as the inputs
        count, kept = x.shape[1], int(x.shape[1] * self.keep)
        order = scores.argsort(dim=1, descending=True, stable=True)
        best, rows = order[:, :kept], order[:, :kept, None].expand(-1, -1, x.shape[2])
        others = scores.scatter(1, best, 0.0)
        weights = (others / others.sum(dim=1, keepdim=True)).to(x.dtype)
        sequence = torch.cat([cls, x.gather(1, rows), weights[:, None] @ x], dim=1)
        sequence, fast, attention = self._transform(sequence)
        x = x + fast
        x = x.scatter(1, rows, sequence[:, 1:-1].to(x.dtype))
        # A single other token stands for itself: its score is known, and the published code updates it.
        updated = order if count - kept == 1 else best
        attention = attention[:, : updated.shape[1]]
        fresh = torch.lerp(scores.gather(1, updated), attention.to(scores.dtype), self.trade_off)
        return x, sequence[:, :1], scores.scatter(1, updated, fresh)

    def _transform(
        self,
        x: Tensor,  # [B, N, C]
    ) -> tuple[Tensor, Tensor, Tensor]:  # [B, N, C], [B, 1, C], [B, N - 1]
        """Attention and MLP on residual branches; what both add to the last token; what cls attends to."""
        branch, attention = self.attn(self.norm1(x))
        fast = _scaled(branch[:, -1:], self.gamma_1)
        x = residual_add(x, branch, self.drop_path, self.gamma_1)
        branch = self.mlp(self.norm2(x))
        fast = fast + _scaled(branch[:, -1:], self.gamma_2)
        return residual_add(x, branch, self.drop_path, self.gamma_2), fast, attention


def _scaled(
    branch: Tensor,  # [B, 1, C]
    layer_scale: Tensor | None,  # [C]
) -> Tensor:  # [B, 1, C]
    return branch if layer_scale is None else branch * layer_scale.to(branch.dtype)
