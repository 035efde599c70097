"""The blocks of UniFormerV2: CLIP's with local relations over time, and the global ones that read a clip.

Source: Li et al., "UniFormerV2: Spatiotemporal Learning by Arming Image ViTs with Video UniFormer", ICCV 2023,
https://arxiv.org/abs/2211.09552, sections 3.2 and 3.3, and the authors' code.
"""

from functools import partial

import torch
from torch import Tensor, nn

from vtfast.layers import DepthwiseConv3d, DividedAttention, Mlp, StochasticDepth, add_branch, residual_add
from vtfast.layers.batch_norm import batch_norm, fold_into_next
from vtfast.layers.dynamic_position import add_positions
from vtfast.layers.linear import linear
from vtfast.layers.query_attention import QueryAttention
from vtfast.layers.stochastic_depth import PositionStochasticDepth
from vtfast.ops._arguments import Triple


class TemporalRelation(nn.Module):
    """The local relation aggregator: every token with those of the same place in the frames next to its own.

    Batch normalisation, a linear layer to fewer channels, a depthwise convolution over 3 frames and a linear layer
    back, which starts at zero; no activation.

    Args:
        dim: channels.
        reduction: channels over those of the convolution, which are rounded down.
    """

    def __init__(self, dim: int, reduction: float) -> None:
        super().__init__()
        reduced = int(dim // reduction)
        self.norm: nn.Module = nn.BatchNorm3d(dim)
        self.reduce = nn.Linear(dim, reduced)
        self.conv = DepthwiseConv3d(reduced, (3, 1, 1))
        self.expand = nn.Linear(reduced, dim)
        nn.init.zeros_(self.expand.weight)
        nn.init.zeros_(self.expand.bias)

    def forward(
        self,
        x: Tensor,  # [B, T, H, W, C]
        residual: Tensor | None = None,  # [B, T, H, W, C]
    ) -> Tensor:  # [B, T, H, W, C]
        reduced = linear(batch_norm(x, self.norm), self.reduce)
        return linear(self.conv.tokens(reduced), self.expand, residual=residual)

    def fold_norms(self) -> None:
        """Makes the normalisation part of the linear layer behind it, for evaluation."""
        self.norm = fold_into_next(self.norm, self.reduce)


class Block(nn.Module):
    """A block of CLIP's image tower, frame by frame, with local relations before attention and MLP if asked for.

    Attention and MLP drop token positions, for all clips and frames at once, or with `per_sample` clips; local
    relations always drop clips.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        local_reduction: float | None,
        mlp_ratio: float,
        drop_path_rate: float,
        per_sample: bool,
    ) -> None:
        super().__init__()
        self.lmhra1 = self.lmhra2 = None
        if local_reduction is not None:
            self.lmhra1, self.lmhra2 = TemporalRelation(dim, local_reduction), TemporalRelation(dim, local_reduction)
        self.ln_1 = nn.LayerNorm(dim)
        # A frame of a clip's own: in "space" of one frame, cls does what every token does.
        self.attn = DividedAttention(dim, num_heads, "space")
        self.ln_2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), activation="quick_gelu")
        self.local_drop_path = StochasticDepth(drop_path_rate)
        self.drop_path = _drop_path(drop_path_rate, per_sample)
        _init_attention(self.attn)

    def forward(
        self,
        x: Tensor,  # [B, T, 1 + H*W, C]
        grid: Triple,
    ) -> Tensor:  # [B, T, 1 + H*W, C]
        x = self._relate(x, grid, self.lmhra1)
        x = add_branch(x, partial(self._attend, grid=grid), self.ln_1(x), self.drop_path)
        x = self._relate(x, grid, self.lmhra2)
        return add_branch(x, self.mlp, self.ln_2(x), self.drop_path)

    def _relate(
        self,
        x: Tensor,  # [B, T, 1 + H*W, C]
        grid: Triple,
        relation: TemporalRelation | None,
    ) -> Tensor:  # [B, T, 1 + H*W, C]
        """Local relations of all tokens but cls."""
        if relation is None:
            return x
        # The normalisation of a contiguous copy is so much faster that the copy pays.
        patches = x[:, :, 1:].unflatten(2, grid[1:]).contiguous()
        patches = add_branch(patches, relation, patches, self.local_drop_path)
        return torch.cat([x[:, :, :1], patches.flatten(2, 3)], dim=2)

    def _attend(
        self,
        x: Tensor,  # [B, T, 1 + H*W, C]
        grid: Triple,
        residual: Tensor | None = None,  # [B, T, 1 + H*W, C]
    ) -> Tensor:  # [B, T, 1 + H*W, C]
        residual = None if residual is None else residual.flatten(0, 1)
        return self.attn(x.flatten(0, 1), (1, *grid[1:]), residual=residual).view_as(x)


class GlobalBlock(nn.Module):
    """Queries that read all tokens of a clip, and an MLP on them.

    The tokens are those of the frames, cls among them, the others with a dynamic position embedding that no other
    block sees. The last linear layers of both branches start at zero.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float,
        drop_path_rate: float,
        mlp_drop_rate: float,
        per_sample: bool,
    ) -> None:
        super().__init__()
        self.dpe = DepthwiseConv3d(dim, 3)
        self.ln_1 = nn.LayerNorm(dim)
        self.attn = QueryAttention(dim, num_heads)
        self.ln_2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, round(dim * mlp_ratio), mlp_drop_rate, activation="quick_gelu", dropout_out=0.0)
        self.ln_3 = nn.LayerNorm(dim)
        self.drop_path = _drop_path(drop_path_rate, per_sample)
        nn.init.zeros_(self.dpe.bias)  # type: ignore[arg-type]
        _init_attention(self.attn)
        nn.init.xavier_uniform_(self.mlp.fc1.weight)
        for last in (self.attn.proj, self.mlp.fc2):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(
        self,
        query: Tensor,  # [B, Q, C]
        x: Tensor,  # [B, T, 1 + H*W, C]
        grid: Triple,
        extra: Tensor | None = None,  # [B, E, C]
    ) -> Tensor:  # [B, Q, C]
        """The queries after they read `x`, and with it further tokens `extra` if given."""
        patches = add_positions(x[:, :, 1:].unflatten(2, grid[1:]), self.dpe)
        contexts = [self.ln_3(patches).flatten(1, 3), self.ln_3(x[:, :, 0])]
        if extra is not None:
            contexts.append(self.ln_3(extra))
        query = residual_add(query, self.attn(self.ln_1(query), *contexts), self.drop_path)
        return add_branch(query, self.mlp, self.ln_2(query), self.drop_path)


def _drop_path(rate: float, per_sample: bool) -> StochasticDepth:
    return StochasticDepth(rate) if per_sample else PositionStochasticDepth(rate)


def _init_attention(attn: DividedAttention | QueryAttention) -> None:
    """As `nn.MultiheadAttention` draws its weights."""
    nn.init.xavier_uniform_(attn.qkv.weight)
    nn.init.zeros_(attn.qkv.bias)
    nn.init.zeros_(attn.proj.bias)
