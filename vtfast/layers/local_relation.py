"""The block of UniFormer's early stages: tokens gather from their neighbours with learned weights.

Source: Li et al., "UniFormer: Unified Transformer for Efficient Spatiotemporal Representation Learning", 2022,
section 3.2.
"""

import torch
from torch import Tensor, nn

from vtfast.layers.batch_norm import batch_norm, fold_into_next
from vtfast.layers.depthwise_conv3d import DepthwiseConv3d
from vtfast.layers.dynamic_position import add_positions
from vtfast.layers.linear import linear
from vtfast.layers.mlp import Mlp
from vtfast.layers.residual import add_branch
from vtfast.layers.stochastic_depth import StochasticDepth


class LocalRelationBlock(nn.Module):
    """Dynamic position embedding, local relation aggregation and MLP, each on a residual branch.

    The position embedding is a depthwise convolution 3 x 3 x 3. The aggregation is a depthwise convolution 5 x 5 x 5
    between two linear layers, with no activation. Batch normalisation precedes it and the MLP. What the published code
    has as convolutions 1 x 1 x 1 are linear layers here, on channels-last tokens.

    Args:
        dim: channels.
        hidden_dim: channels between the layers of the MLP.
        dropout: probability of dropping a value after each layer of the MLP, in training.
        drop_path_rate: stochastic depth of the two branches behind the position embedding.
        layer_scale: initial value of a learned factor for each channel of these branches; None for no factor.
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        *,
        dropout: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.pos_embed = DepthwiseConv3d(dim, 3)
        self.norm1: nn.Module = nn.BatchNorm3d(dim)
        self.conv1 = nn.Linear(dim, dim)
        self.attn = DepthwiseConv3d(dim, 5)
        self.conv2 = nn.Linear(dim, dim)
        self.norm2: nn.Module = nn.BatchNorm3d(dim)
        self.mlp = Mlp(dim, hidden_dim, dropout)
        self.drop_path = StochasticDepth(drop_path_rate)
        self.gamma_1, self.gamma_2 = layer_scales(dim, layer_scale)

    def forward(
        self,
        x: Tensor,  # [B, T, H, W, C]
    ) -> Tensor:  # [B, T, H, W, C]
        x = add_positions(x, self.pos_embed)
        x = add_branch(x, self._aggregate, batch_norm(x, self.norm1), self.drop_path, self.gamma_1)
        return add_branch(x, self.mlp, batch_norm(x, self.norm2), self.drop_path, self.gamma_2)

    def fold_norms(self) -> None:
        """Makes both normalisations part of the linear layers behind them, for evaluation."""
        self.norm1 = fold_into_next(self.norm1, self.conv1)
        self.norm2 = fold_into_next(self.norm2, self.mlp.fc1)

    def _aggregate(
        self,
        normed: Tensor,  # [B, T, H, W, C]
        residual: Tensor | None = None,  # [B, T, H, W, C]
    ) -> Tensor:  # [B, T, H, W, C]
        return linear(self.attn.tokens(linear(normed, self.conv1)), self.conv2, residual=residual)


def layer_scales(dim: int, initial: float | None) -> tuple[nn.Parameter | None, nn.Parameter | None]:  # each [dim]
    """The factors of the channels of a block's two branches, if there are any."""
    if initial is None:
        return None, None
    return nn.Parameter(torch.full((dim,), initial)), nn.Parameter(torch.full((dim,), initial))
