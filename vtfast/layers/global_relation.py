"""The block of UniFormer's late stages: tokens gather from the whole clip by attention.

Source: Li et al., "UniFormer: Unified Transformer for Efficient Spatiotemporal Representation Learning", 2022,
section 3.2.
"""

from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from vtfast.layers.depthwise_conv3d import DepthwiseConv3d
from vtfast.layers.divided_attention import DividedAttention
from vtfast.layers.dynamic_position import add_positions
from vtfast.layers.local_relation import layer_scales
from vtfast.layers.mlp import Mlp
from vtfast.layers.residual import add_branch
from vtfast.layers.stochastic_depth import StochasticDepth
from vtfast.ops._arguments import Triple

EPS = 1e-6  # of the LayerNorms in blocks with attention


class GlobalRelationBlock(nn.Module):
    """Dynamic position embedding, attention of all tokens of the clip and MLP, each on a residual branch.

    Attention is `vtfast.ops.joint_attention`. On a CPU (one core of an AVX-512 machine) that is faster than PyTorch's
    `scaled_dot_product_attention` with the copies it needs at every size of UniFormer: at 1568 tokens and 5 heads of
    64 channels 32 against 39 ms in float32 and 18 against 42 ms in bfloat16, with the backward 112 against 144 ms and
    62 against 122 ms; at 784 tokens, and at 392 tokens and 8 heads, by the same factors.

    Args:
        dim: channels.
        num_heads: attention heads.
        hidden_dim: channels between the layers of the MLP.
        qkv_bias: whether the projection to q, k and v has a bias.
        dropout: probability of dropping a value after the attention's projection and after each layer of the MLP, in
            training.
        drop_path_rate: stochastic depth of the two branches behind the position embedding.
        layer_scale: initial value of a learned factor for each channel of these branches; None for no factor.

    Raises:
        ValueError: `num_heads` does not divide `dim`.
    """

    scheme: ClassVar[str] = "joint"  # of the attention

    def __init__(
        self,
        dim: int,
        num_heads: int,
        hidden_dim: int,
        *,
        qkv_bias: bool = True,
        dropout: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.pos_embed = DepthwiseConv3d(dim, 3)
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = DividedAttention(dim, num_heads, self.scheme, qkv_bias=qkv_bias, dropout=dropout)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = Mlp(dim, hidden_dim, dropout)
        self.drop_path = StochasticDepth(drop_path_rate)
        self.gamma_1, self.gamma_2 = layer_scales(dim, layer_scale)

    def forward(
        self,
        x: Tensor,  # [B, T, H, W, C]
    ) -> Tensor:  # [B, T, H, W, C]
        x = add_positions(x, self.pos_embed)
        attention = partial(self.attn, grid=grid_of(x), num_prefix=0)
        x = add_branch(x, attention, self.norm1(x), self.drop_path, self.gamma_1)
        return add_branch(x, self.mlp, self.norm2(x), self.drop_path, self.gamma_2)


def grid_of(
    x: Tensor,  # [B, T, H, W, C]
) -> Triple:
    """Size (T, H, W) of a token grid."""
    _, t, h, w, _ = x.shape
    return t, h, w
