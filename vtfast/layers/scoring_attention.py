"""Self-attention that also tells how much the first token attends to each of the others."""

import torch
from torch import Tensor

from vtfast.layers.divided_attention import DividedAttention
from vtfast.layers.linear import linear
from vtfast.ops import joint_attention


class ScoringAttention(DividedAttention):
    """Multi-head self-attention over all tokens, the first of which is cls.

    Args:
        dim: channels.
        num_heads: number of attention heads.
        qkv_bias: whether the packed projection has a bias.
        dropout: probability of dropping a value of the output, in training.

    Raises:
        ValueError: `num_heads` does not divide `dim`.
    """

    def __init__(self, dim: int, num_heads: int, *, qkv_bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__(dim, num_heads, "joint", qkv_bias=qkv_bias, dropout=dropout)

    def forward(  # type: ignore[override]
        self,
        x: Tensor,  # [B, 1 + N, C]
    ) -> tuple[Tensor, Tensor]:  # [B, 1 + N, C], [B, N] in float32 or wider
        """The attention output, and the weights with which cls attends to the others, averaged over the heads."""
        qkv = linear(x, self.qkv)
        out = joint_attention(qkv, (1, 1, x.shape[1]), num_heads=self.num_heads)
        dropout = self.dropout if self.training else 0.0
        return linear(out, self.proj, dropout=dropout), self._cls_weights(qkv)

    def _cls_weights(
        self,
        qkv: Tensor,  # [B, 1 + N, 3 * C]
    ) -> Tensor:  # [B, N]
        q, k, _ = qkv.unflatten(-1, (3, self.num_heads, -1)).unbind(2)  # each [B, 1 + N, heads, head_dim]
        scores = torch.einsum("bhd,bnhd->bhn", q[:, 0] * q.shape[-1] ** -0.5, k)
        wide = torch.promote_types(scores.dtype, torch.float32)
        return scores.softmax(dim=-1, dtype=wide)[..., 1:].mean(dim=1)
