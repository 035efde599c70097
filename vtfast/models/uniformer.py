"""UniFormer: convolution-like aggregation of neighbours in the early stages, attention over the clip in the late ones.

Source: Li et al., "UniFormer: Unified Transformer for Efficient Spatiotemporal Representation Learning", ICLR 2022,
https://arxiv.org/abs/2201.04676.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from vtfast.layers import GlobalRelationBlock, SplitRelationBlock, StridedPatchEmbed3d
from vtfast.models.features import resolve_indices
from vtfast.models.uniformer_stages import PATCH, UniFormerStages, check_stages

__all__ = ["UniFormer"]


class UniFormer(UniFormerStages):
    """UniFormer on clips (B, C, T, H, W) of any length, and any resolution from 32 x 32 pixels.

    A token of the first stage is 2 frames of 4 x 4 pixels that see the frame before; each further stage halves height
    and width. Odd numbers of frames are rounded up, and pixels that no whole patch covers are left out, as published.

    Args:
        num_classes: classes of the head, 0 for none.
        in_channels: channels of the clip.
        depths: blocks of each stage.
        embed_dims: channels of each stage.
        head_dim: channels of an attention head.
        mlp_ratio: hidden channels of the MLP over its channels.
        qkv_bias: whether the projections to q, k and v have a bias.
        split: whether attention is over time and then over space, in place of the whole clip; see
            `vtfast.layers.SplitRelationBlock`.
        std: whether the patches of the later stages see the frames before and after, too.
        layer_scale: initial value of a learned factor for each channel of the blocks' branches; None for no factor.
        drop_rate: dropout before the head.
        proj_drop_rate: dropout after the first patch embedding, the attention's projection and each layer of the MLP.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0 over the blocks.
        global_pool: "avg", or "" for a head on every token.

    Raises:
        ValueError: an option out of range.
    """

    def __init__(
        self,
        *,
        num_classes: int = 400,
        in_channels: int = 3,
        depths: Sequence[int] = (3, 4, 8, 3),
        embed_dims: Sequence[int] = (64, 128, 320, 512),
        head_dim: int = 64,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        split: bool = False,
        std: bool = False,
        layer_scale: float | None = None,
        drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        check_stages(depths, embed_dims, head_dim)
        global_block = SplitRelationBlock if split else GlobalRelationBlock

        def make_embedding(stage: int) -> nn.Module:
            if stage == 0:
                return StridedPatchEmbed3d(in_channels, embed_dims[0], (3, *PATCH[1:]), PATCH)
            kernel = (3, 2, 2) if std else (1, 2, 2)
            return StridedPatchEmbed3d(embed_dims[stage - 1], embed_dims[stage], kernel, (1, 2, 2))

        def make_global_block(dim: int, hidden_dim: int, first: bool, **options: Any) -> nn.Module:
            return global_block(dim, dim // head_dim, hidden_dim, qkv_bias=qkv_bias, **options)

        stage_info = self._add_stages(
            in_channels,
            embed_dims,
            depths,
            mlp_ratio,
            drop_path_rate,
            make_embedding,
            make_global_block,
            dropout=proj_drop_rate,
            layer_scale=layer_scale,
        )
        self.pos_drop = nn.Dropout(proj_drop_rate)
        self.head_drop = nn.Dropout(drop_rate)
        self._add_head(stage_info, num_classes, global_pool)
        self._init_global_stages()
        for module in self.modules():
            if isinstance(module, SplitRelationBlock):
                module.init_time_attention()

    def forward_features(
        self,
        clip: Tensor,  # [B, C, T, H, W]
    ) -> Tensor:  # [B, T', H', W', num_features]
        """The tokens of the last stage, normalised, channels last."""
        x = clip
        for stage in range(self.num_stages):
            x = self._run_blocks(stage, self._embed(stage, x))
        return self._normalise(x)

    def forward_intermediates(
        self,
        clip: Tensor,  # [B, C, T, H, W]
        indices: Sequence[int] | None = None,
    ) -> list[Tensor]:  # each [B, C', T', H', W']
        """The output of the stages `indices` (all if None) as feature maps, before the final norm.

        Raises:
            ValueError: a stage that does not exist, stages out of order or none.
        """
        wanted = resolve_indices(indices, len(self.stage_info))
        x, maps = clip, []
        for stage in range(wanted[-1] + 1):
            x = self._run_blocks(stage, self._embed(stage, x))
            if stage in wanted:
                maps.append(x.permute(0, 4, 1, 2, 3))
        return maps
