"""MViT and MViTv2: pooling attention in stages of falling resolution and growing width.

Source: Fan et al., "Multiscale Vision Transformers", ICCV 2021, https://arxiv.org/abs/2104.11227; Li et al., "MViTv2:
Improved Multiscale Vision Transformers for Classification and Detection", CVPR 2022, https://arxiv.org/abs/2112.01526.
"""

from collections.abc import Collection, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from vtfast.layers import (
    Mlp,
    OverlappingPatchEmbed3d,
    PoolingAttention,
    StochasticDepth,
    TokenPooling,
    add_branch,
)
from vtfast.layers.linear import linear
from vtfast.layers.separable_positions import separable_positions
from vtfast.layers.token_pooling import EPS
from vtfast.models.backbone import Backbone, init_linear, normal_parameter, pair, rising, run_block
from vtfast.models.features import StageInfo, resolve_indices
from vtfast.ops._arguments import Triple, triple

__all__ = ["MViT"]


class Block(nn.Module):
    """Pooling attention and MLP, each on a normalised residual branch.

    The residual connection of the attention is pooled as the queries are, by their maximum in windows of stride + 1.
    Where the block changes the number of channels, its other residual connection, or with `expand_in_attention` this
    one, is a projection of the normalised tokens.
    """

    def __init__(
        self,
        dim: int,
        dim_out: int,
        num_heads: int,
        *,
        q_stride: Triple,
        expand_in_attention: bool,
        mlp_ratio: float,
        drop_path_rate: float,
        dropout: float,
        **attention: Any,
    ) -> None:
        super().__init__()
        attention_dim = dim_out if expand_in_attention else dim
        self.expand_in_attention = expand_in_attention
        self.norm1 = _norm(dim)
        self.attn = PoolingAttention(
            dim, num_heads, dim_out=attention_dim, q_stride=q_stride, dropout=dropout, **attention
        )
        self.pool_skip = None
        if q_stride != (1, 1, 1):
            self.pool_skip = TokenPooling(_overlapping(q_stride), q_stride, mode="max")
        self.norm2 = _norm(attention_dim)
        self.mlp = Mlp(attention_dim, int(attention_dim * mlp_ratio), dropout, dim_out)
        self.proj = None if dim == dim_out else nn.Linear(dim, dim_out)
        self.drop_path = StochasticDepth(drop_path_rate)

    def forward(
        self,
        x: Tensor,  # [B, P + T*H*W, C]
        grid: Triple,
        num_prefix: int,
    ) -> Tensor:  # [B, P + T'*H'*W', C'] with (T', H', W') = self.attn.q_grid(grid)
        normed = self.norm1(x)
        if self.proj is not None and self.expand_in_attention:
            x = linear(normed, self.proj)
        if self.pool_skip is not None:
            x = self.pool_skip(x, grid, num_prefix=num_prefix)
        x = add_branch(x, partial(self.attn, grid=grid, num_prefix=num_prefix), normed, self.drop_path)
        normed = self.norm2(x)
        if self.proj is not None and not self.expand_in_attention:
            x = linear(normed, self.proj)
        return add_branch(x, self.mlp, normed, self.drop_path)


class MViT(Backbone):
    """MViT or MViTv2 on clips (B, C, T, H, W) of any length and resolution; an image (B, C, H, W) is one frame.

    Tokens are (B, P + T*H*W, C): cls if there is one (P = 1), then the grid, t slowest. The first block of each stage
    but the first pools the queries, by which the resolution falls; channels and heads double from stage to stage.
    Positions of another size, absolute and relative, are interpolated linearly. The default options are those of
    MViT-B, 16 frames; `pool_all_queries`, `expand_in_attention`, `residual_pooling`, `rel_pos_spatial` and
    `rel_pos_temporal` without `abs_pos` make an MViTv2.

    Args:
        num_classes: classes of the head, 0 for none.
        in_channels: channels of the clip.
        image_size: height and width in pixels, or the side of a square, that positions are learned for.
        num_frames: frames that positions are learned for.
        patch_kernel: size (T, H, W) of a patch, in frames and pixels.
        patch_stride: distance (T, H, W) between patches, in frames and pixels.
        embed_dim: channels of the first stage.
        depths: blocks of each stage.
        num_heads: attention heads of the first stage.
        q_stride: stride (T, H, W) of the queries at the start of each further stage, in tokens.
        kv_stride: stride (T, H, W) of keys and values in the first stage, in tokens; in each further one it is that of
            the stage before over `q_stride`, and at least 1.
        pool_kernel: window (T, H, W) of all pooling in the attention, in tokens; None for stride + 1 along each axis
            with a stride, and 1 along the others.
        pool_mode: "conv", "conv_unshared", "avg" or "max", see `vtfast.layers.PoolingAttention`.
        pool_first: whether attention pools its input, in place of q, k and v.
        pool_all_queries: whether the queries of all other blocks are pooled too, with stride 1.
        expand_in_attention: whether the attention of the first block of a stage makes the channels of the stage; else
            the MLP of the block before does.
        residual_pooling: whether pooled queries are added to what attention makes of them.
        residual_pooling_cls: whether that of cls is, too; implies `residual_pooling`.
        cls_token: whether there is a cls token.
        abs_pos: whether positions, of the place in the frame and of the frame, are added to the tokens.
        rel_pos_spatial: whether attention has relative positions along height and width.
        rel_pos_temporal: whether attention has relative positions along time.
        mlp_ratio: hidden channels of the MLP over its input's.
        qkv_bias: whether the projections to q, k and v have a bias.
        drop_rate: dropout before the head.
        proj_drop_rate: dropout after the positions are added, after the attention's projection and after each layer of
            the MLP.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0 over the blocks.
        norm_mean: whether the norm before the head is that of the mean over the tokens, with `global_pool="avg"`; else
            that of each token.
        global_pool: "token" for a head on cls, "avg" for one on the mean over the tokens of the grid, or "" for a head
            on every token. None takes "token" if there is a cls.

    Raises:
        TypeError: an option of another type.
        ValueError: an option out of range.
    """

    stages_name = "blocks"
    undecayed = (
        "cls_token",
        "pos_embed_spatial",
        "pos_embed_temporal",
        "pos_embed_class",
        "rel_pos_t",
        "rel_pos_h",
        "rel_pos_w",
    )

    def __init__(
        self,
        *,
        num_classes: int = 400,
        in_channels: int = 3,
        image_size: int | Sequence[int] = 224,
        num_frames: int = 16,
        patch_kernel: int | Sequence[int] = (3, 7, 7),
        patch_stride: int | Sequence[int] = (2, 4, 4),
        embed_dim: int = 96,
        depths: Sequence[int] = (1, 2, 11, 2),
        num_heads: int = 1,
        q_stride: int | Sequence[int] = (1, 2, 2),
        kv_stride: int | Sequence[int] = (1, 8, 8),
        pool_kernel: int | Sequence[int] | None = 3,
        pool_mode: str = "conv",
        pool_first: bool = False,
        pool_all_queries: bool = False,
        expand_in_attention: bool = False,
        residual_pooling: bool = False,
        residual_pooling_cls: bool = False,
        cls_token: bool = True,
        abs_pos: bool = True,
        rel_pos_spatial: bool = False,
        rel_pos_temporal: bool = False,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_rate: float = 0.5,
        proj_drop_rate: float = 0.0,
        drop_path_rate: float = 0.2,
        norm_mean: bool = False,
        global_pool: str | None = None,
    ) -> None:
        super().__init__()
        if not depths or min(depths) < 1:
            raise ValueError(f"depths must be one or more ints of at least 1, got {depths}")
        if num_frames < 1:
            raise ValueError(f"num_frames must be at least 1, got {num_frames}")
        q_stride, kv_stride = triple(q_stride, "q_stride", 1), triple(kv_stride, "kv_stride", 1)
        self.patch_embed = OverlappingPatchEmbed3d(in_channels, embed_dim, patch_kernel, patch_stride)
        patch_stride = triple(patch_stride, "patch_stride", 1)
        self.learned_grid = _over((num_frames, *pair(image_size, "image_size")), patch_stride)
        self.num_prefix = int(cls_token)
        self._add_positions(embed_dim, abs_pos)
        self.pos_drop = nn.Dropout(proj_drop_rate)
        self.stage_ends = tuple(accumulate(depths))
        self.blocks = self._make_blocks(
            depths,
            embed_dim,
            num_heads,
            q_stride,
            kv_stride,
            None if pool_kernel is None else triple(pool_kernel, "pool_kernel", 1),
            rising(drop_path_rate, sum(depths)),
            pool_all_queries=pool_all_queries,
            rel_pos=(rel_pos_temporal, rel_pos_spatial),
            expand_in_attention=expand_in_attention,
            mode=pool_mode,
            pool_first=pool_first,
            residual=residual_pooling,
            residual_prefix=residual_pooling_cls,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            dropout=proj_drop_rate,
        )
        last = len(depths) - 1
        stage_info = [
            StageInfo(
                stage,
                embed_dim << min(stage + (not expand_in_attention), last),
                _times(patch_stride, q_stride, stage),
            )
            for stage in range(len(depths))
        ]
        self.norm_mean = norm_mean
        self.norm = _norm(stage_info[-1].channels)
        self.head_drop = nn.Dropout(drop_rate)
        self.global_pools = ("token", "avg") if cls_token else ("avg",)
        self._add_head(stage_info, num_classes, self.global_pools[0] if global_pool is None else global_pool)
        self.apply(init_linear)

    def _add_positions(self, embed_dim: int, abs_pos: bool) -> None:
        """The parameters that are added to the tokens, and cls."""
        frames, height, width = self.learned_grid
        self.cls_token = normal_parameter(1, 1, embed_dim) if self.num_prefix else None
        self.pos_embed_spatial = normal_parameter(1, height * width, embed_dim) if abs_pos else None
        self.pos_embed_temporal = normal_parameter(1, frames, embed_dim) if abs_pos else None
        self.pos_embed_class = normal_parameter(1, 1, embed_dim) if abs_pos and self.num_prefix else None

    def _make_blocks(
        self,
        depths: Sequence[int],
        embed_dim: int,
        num_heads: int,
        q_stride: Triple,
        kv_stride: Triple,
        kernel: Triple | None,
        drop_path_rates: Sequence[float],
        *,
        pool_all_queries: bool,
        rel_pos: tuple[bool, bool],
        expand_in_attention: bool,
        **options: Any,
    ) -> nn.ModuleList:
        blocks, dim, grid = nn.ModuleList(), embed_dim, self.learned_grid
        for stage, depth in enumerate(depths):
            if stage > 0:
                kv_stride = _over(kv_stride, q_stride)
            for index in range(depth):
                pools = stage > 0 and index == 0
                stride = q_stride if pools else (1, 1, 1)
                widens = index == depth - 1 and stage < len(depths) - 1 and not expand_in_attention
                dim_out = embed_dim << (stage + widens)
                block = Block(
                    dim,
                    dim_out,
                    num_heads << stage,
                    q_stride=stride,
                    q_kernel=_window(kernel, stride) if pools or pool_all_queries else (1, 1, 1),
                    kv_stride=kv_stride,
                    kv_kernel=_window(kernel, kv_stride),
                    rel_pos_sizes=_relative_sizes(grid, stride, kv_stride, *rel_pos),
                    expand_in_attention=expand_in_attention,
                    drop_path_rate=drop_path_rates[len(blocks)],
                    **options,
                )
                blocks.append(block)
                dim, grid = dim_out, _over(grid, stride)
        return blocks

    def forward_features(
        self,
        clip: Tensor,  # [B, C, T, H, W], or an image [B, C, H, W]
    ) -> Tensor:  # [B, P + T'*H'*W', num_features]
        """The tokens of the last stage, cls first, normalised unless the head normalises their mean."""
        x, _ = self._forward_blocks(clip)
        return x if self._norms_mean() else self.norm(x)

    def forward_intermediates(
        self,
        clip: Tensor,  # [B, C, T, H, W], or an image [B, C, H, W]
        indices: Sequence[int] | None = None,
    ) -> list[Tensor]:  # each [B, C', T', H', W']
        """The output of the stages `indices` (all if None) as feature maps, without cls and before the final norm.

        Raises:
            ValueError: a stage that does not exist, stages out of order or none.
        """
        return self._forward_blocks(clip, resolve_indices(indices, len(self.stage_info)))[1]

    def _forward_blocks(
        self,
        clip: Tensor,  # [B, C, T, H, W], or an image [B, C, H, W]
        wanted: Collection[int] = (),
    ) -> tuple[Tensor, list[Tensor]]:  # [B, P + T'*H'*W', C']; each [B, C', T', H', W']
        """The tokens after the last block, and the feature maps after the stages `wanted`."""
        x, grid = self._embed(clip)
        kept, ends = [], {self.stage_ends[stage] for stage in wanted}
        for count, block in enumerate(self.blocks, 1):
            x = run_block(block, x, grid, self.num_prefix, recompute=self.grad_checkpointing)
            grid = block.attn.q_grid(grid)  # type: ignore[operator, union-attr]
            if count in ends:
                kept.append(x[:, self.num_prefix :].unflatten(1, grid).permute(0, 4, 1, 2, 3))
        return x, kept

    def _embed(
        self,
        clip: Tensor,  # [B, C, T, H, W], or an image [B, C, H, W]
    ) -> tuple[Tensor, Triple]:  # [B, P + T'*H'*W', embed_dim], (T', H', W')
        """Tokens with their positions, cls first, and the size of their grid."""
        if isinstance(clip, Tensor) and clip.dim() == 4:
            clip = clip.unsqueeze(2)
        x = self.patch_embed(clip)  # [B, T', H', W', embed_dim]
        batch, frames, height, width, _ = x.shape
        grid, x = (frames, height, width), x.flatten(1, 3)
        if self.pos_embed_spatial is not None and self.pos_embed_temporal is not None:
            x = x + separable_positions(self.pos_embed_spatial, self.pos_embed_temporal, self.learned_grid, grid)
        if self.cls_token is not None:
            cls = self.cls_token if self.pos_embed_class is None else self.cls_token + self.pos_embed_class
            x = torch.cat([cls.expand(batch, -1, -1), x], dim=1)
        return self.pos_drop(x), grid

    def _stage_end(self, stage: int) -> int:
        return self.stage_ends[stage]

    def _norms_mean(self) -> bool:
        return self.norm_mean and self.global_pool == "avg"

    def _pool(
        self,
        x: Tensor,  # [B, P + T'*H'*W', num_features]
    ) -> Tensor:  # [B, num_features]
        if self.global_pool == "token":
            return x[:, 0]
        mean = x[:, self.num_prefix :].mean(dim=1)
        return self.norm(mean) if self._norms_mean() else mean


def _norm(dim: int) -> nn.LayerNorm:
    return nn.LayerNorm(dim, eps=EPS)


def _over(sizes: Triple, strides: Triple) -> Triple:
    """Sizes after strides, rounded down and at least 1, as the published code counts them."""
    t, h, w = (max(size // stride, 1) for size, stride in zip(sizes, strides, strict=True))
    return t, h, w


def _times(sizes: Triple, strides: Triple, count: int) -> Triple:
    """Sizes times `count` strides."""
    t, h, w = (size * stride**count for size, stride in zip(sizes, strides, strict=True))
    return t, h, w


def _overlapping(stride: Triple) -> Triple:
    """Windows that overlap by one along the axes with a stride."""
    t, h, w = (size + 1 if size > 1 else 1 for size in stride)
    return t, h, w


def _window(kernel: Triple | None, stride: Triple) -> Triple:
    return _overlapping(stride) if kernel is None else kernel


def _relative_sizes(grid: Triple, q_stride: Triple, kv_stride: Triple, temporal: bool, spatial: bool) -> Triple:
    """Sizes that the tables of relative positions are made for, 0 for none.

    They are rounded down, where the pooled grids themselves are rounded up: MViTv2-L has 19 for 20 places.
    """
    side = max(grid[1:])
    height, width = (max(side // q, side // kv, 1) for q, kv in zip(q_stride[1:], kv_stride[1:], strict=True))
    return grid[0] if temporal else 0, height if spatial else 0, width if spatial else 0
