"""UniFormerV2: CLIP's image tower frame by frame, and global blocks that gather a clip from its last layers.

Source: Li et al., "UniFormerV2: Spatiotemporal Learning by Arming Image ViTs with Video UniFormer", ICCV 2023,
https://arxiv.org/abs/2211.09552.
"""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vtfast.layers import OverlappingPatchEmbed3d, PatchEmbed3d
from vtfast.layers.batch_norm import fold_all
from vtfast.layers.position_embedding import resize_places
from vtfast.models.backbone import Backbone, pair, rising, run_block
from vtfast.models.features import StageInfo, resolve_indices
from vtfast.models.uniformer_v2_blocks import Block, GlobalBlock
from vtfast.ops._arguments import Triple

__all__ = ["UniFormerV2"]

DESIGNS = ("scene", "temporal")
FUSIONS = ("sequential", "parallel", "hierarchical_kv", "hierarchical_q")
DROP_PATH_MODES = ("upstream", "per_sample")


class UniFormerV2(Backbone):
    r"""UniFormerV2 on clips (B, C, T, H, W) of any length, and of any height and width that the patch divides.

    Tokens are (B, T, 1 + H*W, C): each frame has a cls, and w is fastest. Positions of another size are interpolated
    bicubically; nothing depends on the number of frames. The published code reads a clip of another length than it
    was made for as more or fewer clips, and one of another shape, but as many places, as a square; this one does not.

    The designs, each with what was published for it:

    * "scene", for Kinetics and the like: no block but the global ones, behind the last 4, looks beyond its frame.
    * "temporal", for Something-Something: patches of 3 frames, 2 apart, for an even number of frames; local relations
      over time twice in each block; global blocks behind the last two thirds.

    The fusions of the global blocks \(G_i\), of which the authors published code and weights of the first alone. The
    others are figure 3 of the paper, which leaves to the reader what is named here:

    * "sequential": the query of a block is what the block before made of its own.
    * "parallel": each block has a query \(q_i\) of its own; their results, one behind the other along the channels,
      go through a linear layer to the channels of one, the paper's U.
    * "hierarchical_kv": each block has a query of its own, and reads the result of the block before beside the tokens.
    * "hierarchical_q": the queries of a block are the results of the block before and one of its own, so that the last
      block has as many results as there are blocks. The paper does not say what becomes of them; here, their mean.

    What the global blocks gathered is mixed with the mean of the last block's cls over the frames, in shares that are
    learned for every channel.

    Args:
        num_classes: classes of the head, 0 for none.
        in_channels: channels of the clip.
        patch_size: patch in pixels, (H, W) or the side of a square.
        image_size: height and width in pixels, or the side of a square, that positions are learned for.
        embed_dim: channels of a token.
        depth: blocks of CLIP.
        num_heads: attention heads.
        mlp_ratio: hidden channels of the MLP over its channels.
        design: "scene" or "temporal".
        global_depth: global blocks, behind as many of the last blocks; None for what `design` says.
        local_reduction: channels over those of the convolution of local relations ("temporal").
        fusion: "sequential", "parallel", "hierarchical_kv" or "hierarchical_q".
        frozen: whether CLIP's part, local relations included, gets no gradients (`requires_grad`), and its cls no
            share in the result. As in the published code it still follows `train()`: give it no stochastic depth.
        drop_rate: dropout before the head.
        mlp_drop_rate: dropout of the hidden layer of the global blocks' MLPs.
        drop_path_rate: stochastic depth of CLIP's last block, rising linearly from 0; None for 0, or 0.2 if "temporal".
        global_drop_path_rate: likewise of the global blocks; None for 0, or 0.4 if "temporal".
        drop_path_mode: what stochastic depth drops. "upstream": in attention and MLP a token position, in all clips
            and frames at once, and in a global block a query, in all clips at once; only in local relations single
            clips. This is what the published code does, whose layout is another than its stochastic depth expects.
            "per_sample": single clips everywhere.
        global_pool: "token", or "", which is the same: there is one token.

    Raises:
        TypeError: an option of another type.
        ValueError: an option out of range.
    """

    stages_name = "blocks"
    global_pools = ("token",)
    undecayed = ("class_embedding", "positional_embedding", "temporal_cls_token", "balance")
    blocks: nn.ModuleList

    def __init__(
        self,
        *,
        num_classes: int = 400,
        in_channels: int = 3,
        patch_size: int | Sequence[int] = 16,
        image_size: int | Sequence[int] = 224,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        design: str = "scene",
        global_depth: int | None = None,
        local_reduction: float = 1.5,
        fusion: str = "sequential",
        frozen: bool = False,
        drop_rate: float = 0.5,
        mlp_drop_rate: float = 0.5,
        drop_path_rate: float | None = None,
        global_drop_path_rate: float | None = None,
        drop_path_mode: str = "upstream",
        global_pool: str = "token",
    ) -> None:
        super().__init__()
        _check_choice("design", design, DESIGNS)
        _check_choice("fusion", fusion, FUSIONS)
        _check_choice("drop_path_mode", drop_path_mode, DROP_PATH_MODES)
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        temporal = design == "temporal"
        if global_depth is None:
            global_depth = max(2 * depth // 3, 1) if temporal else min(4, depth)
        if not 1 <= global_depth <= depth:
            raise ValueError(f"global_depth must be between 1 and depth = {depth}, got {global_depth}")
        if not 1.0 <= local_reduction <= embed_dim:
            raise ValueError(f"local_reduction must be between 1 and embed_dim = {embed_dim}, got {local_reduction}")
        patch, image = pair(patch_size, "patch_size"), pair(image_size, "image_size")
        if image[0] % patch[0] or image[1] % patch[1]:
            raise ValueError(f"patch_size must divide image_size = {image}, got {patch}")
        self.design = design
        self.fusion = fusion
        self.frozen = frozen
        self.patch_size = patch
        self.places = (image[0] // patch[0], image[1] // patch[1])
        self.first_global = depth - global_depth
        self.patch_embed = _patch_embedding(in_channels, embed_dim, patch, temporal)
        self.class_embedding = nn.Parameter(_normal(embed_dim))
        self.positional_embedding = nn.Parameter(_normal(1 + self.places[0] * self.places[1], embed_dim))
        self.ln_pre = nn.LayerNorm(embed_dim)
        shared: dict[str, Any] = {"mlp_ratio": mlp_ratio, "per_sample": drop_path_mode == "per_sample"}
        default = (0.2, 0.4) if temporal else (0.0, 0.0)
        rates = rising(default[0] if drop_path_rate is None else drop_path_rate, depth)
        reduction = local_reduction if temporal else None
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, local_reduction=reduction, drop_path_rate=rate, **shared) for rate in rates
        )
        rates = rising(default[1] if global_drop_path_rate is None else global_drop_path_rate, global_depth)
        self.global_blocks = nn.ModuleList(
            GlobalBlock(embed_dim, num_heads, drop_path_rate=rate, mlp_drop_rate=mlp_drop_rate, **shared)
            for rate in rates
        )
        num_queries = 1 if fusion == "sequential" else global_depth
        self.temporal_cls_token: nn.Parameter | None = nn.Parameter(torch.zeros(num_queries, 1, embed_dim))
        self.fuse_tokens = nn.Linear(global_depth * embed_dim, embed_dim) if fusion == "parallel" else None
        self.balance: nn.Parameter | None = None if frozen else nn.Parameter(torch.zeros(embed_dim))
        self.norm = nn.LayerNorm(embed_dim)
        self.head_drop = nn.Dropout(drop_rate)
        reduced = (2 if temporal else 1, *patch)
        self._add_head([StageInfo(i, embed_dim, reduced) for i in range(depth)], num_classes, global_pool)
        if frozen:
            self._freeze()

    def forward_features(
        self,
        clip: Tensor,  # [B, C, T, H, W]
    ) -> Tensor:  # [B, num_features]
        """The clip as one token, normalised."""
        x, token, _ = self._forward_blocks(clip)
        frames = x[:, :, 0].mean(dim=1)
        if token is None:
            return self.norm(frames)
        if self.balance is None:
            return self.norm(token)
        return self.norm(torch.lerp(token, frames.to(token.dtype), self.balance.sigmoid().to(token.dtype)))

    def forward_intermediates(
        self,
        clip: Tensor,  # [B, C, T, H, W]
        indices: Sequence[int] | None = None,
    ) -> list[Tensor]:  # each [B, C, T', H', W']
        """The output of CLIP's blocks `indices` (all if None) as feature maps, without cls.

        Raises:
            ValueError: a block that does not exist, blocks out of order or none.
        """
        return self._forward_blocks(clip, resolve_indices(indices, len(self.stage_info)), gathers=False)[2]

    def prune_intermediate_layers(self, indices: Sequence[int]) -> None:
        """Removes what the feature maps of the blocks `indices` do not need: later blocks, all global ones, head.

        Raises:
            ValueError: a block that does not exist, blocks out of order or none.
        """
        super().prune_intermediate_layers(indices)
        self.pruned += ("global_blocks.", "temporal_cls_token", "fuse_tokens.", "balance")
        self.global_blocks = nn.ModuleList()
        self.temporal_cls_token = self.fuse_tokens = self.balance = None

    def fuse(self) -> "UniFormerV2":
        """Makes the batch normalisation of local relations part of the layers behind it; for inference.

        Returns:
            The model itself, which gives the same logits with fewer parameters, and takes no checkpoint any more.

        Raises:
            RuntimeError: the model is in training mode, where the statistics are those of each batch.
        """
        fold_all(self)
        return self

    def _forward_blocks(
        self,
        clip: Tensor,  # [B, C, T, H, W]
        wanted: Collection[int] = (),
        gathers: bool = True,
    ) -> tuple[Tensor, Tensor | None, list[Tensor]]:  # [B, T', 1 + H'*W', C]; [B, C]; each [B, C, T', H', W']
        """The tokens after the last block, what the global blocks gathered, and the maps after the blocks `wanted`."""
        x, grid = self._embed(clip)
        tokens, kept = None, []
        for index, block in enumerate(self.blocks):
            x = run_block(block, x, grid, recompute=self.grad_checkpointing)
            if index in wanted:
                kept.append(x[:, :, 1:].unflatten(2, grid[1:]).permute(0, 4, 1, 2, 3))
            if gathers and index >= self.first_global and self.global_blocks:
                tokens = self._gather(index - self.first_global, tokens, x, grid)
        return x, None if tokens is None else self._video_token(tokens), kept

    def _gather(
        self,
        index: int,
        tokens: Tensor | None,  # [B, Q, C]
        x: Tensor,  # [B, T, 1 + H*W, C]
        grid: Triple,
    ) -> Tensor:  # [B, Q', C]
        """The video tokens after the global block `index`, from those before it."""
        queries: Tensor = self.temporal_cls_token  # type: ignore[assignment]
        query = queries[index % len(queries)].expand(x.shape[0], -1, -1)
        extra = None
        if tokens is not None:
            if self.fusion == "sequential":
                query = tokens
            elif self.fusion == "hierarchical_q":
                query = torch.cat([tokens, query.to(tokens.dtype)], dim=1)
            elif self.fusion == "hierarchical_kv":
                extra = tokens
        result = run_block(self.global_blocks[index], query, x, grid, extra, recompute=self.grad_checkpointing)
        if tokens is not None and self.fusion == "parallel":
            return torch.cat([tokens, result], dim=1)
        return result

    def _video_token(
        self,
        tokens: Tensor,  # [B, Q, C]
    ) -> Tensor:  # [B, C]
        """One token of those that the last global block left."""
        if self.fuse_tokens is not None:
            fused: Tensor = self.fuse_tokens(tokens.flatten(1))
            return fused
        return tokens.mean(dim=1)

    def _embed(
        self,
        clip: Tensor,  # [B, C, T, H, W]
    ) -> tuple[Tensor, Triple]:  # [B, T', 1 + H'*W', C], (T', H', W')
        """Tokens with their positions, cls first in every frame, normalised, and the size of their grid."""
        self._check_size(clip)
        x = self.patch_embed(clip)  # [B, T', H', W', C]
        batch, frames, height, width, _ = x.shape
        positions = resize_places(self.positional_embedding.unsqueeze(0), self.places, (height, width), mode="bicubic")
        cls = (self.class_embedding + positions[:, :1]).to(x.dtype)
        patches = x.flatten(2, 3) + positions[:, 1:].unsqueeze(1).to(x.dtype)
        x = torch.cat([cls.unsqueeze(1).expand(batch, frames, -1, -1), patches], dim=2)
        return self.ln_pre(x), (frames, height, width)

    def _check_size(self, clip: Tensor) -> None:
        """Refuses what the patch embedding would cut off or pad; all else it checks itself."""
        if not isinstance(clip, Tensor) or clip.dim() != 5:
            return
        patch, (frames, height, width) = self.patch_size, clip.shape[2:]
        if height % patch[0] or width % patch[1]:
            size = (height, width)
            raise ValueError(f"clip must have a height and width that the patch {patch} divides, got (H, W) = {size}")
        if self.design == "temporal" and frames % 2:
            raise ValueError(f"clip must have an even number of frames for the temporal design, got {frames}")

    def _freeze(self) -> None:
        parts = (self.patch_embed, self.ln_pre, self.blocks, self.class_embedding, self.positional_embedding)
        for part in parts:
            part.requires_grad_(False)

    def _pool(
        self,
        x: Tensor,  # [B, num_features]
    ) -> Tensor:  # [B, num_features]
        return x


def _patch_embedding(
    in_channels: int, embed_dim: int, patch: tuple[int, int], temporal: bool
) -> PatchEmbed3d | OverlappingPatchEmbed3d:
    if not temporal:
        return PatchEmbed3d(in_channels, embed_dim, (1, *patch), norm=False, bias=False)
    return OverlappingPatchEmbed3d(in_channels, embed_dim, (3, *patch), (2, *patch), (1, 0, 0), bias=False)


def _normal(*shape: int) -> Tensor:
    """Drawn as CLIP draws its embeddings."""
    return torch.randn(shape) * shape[-1] ** -0.5


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
