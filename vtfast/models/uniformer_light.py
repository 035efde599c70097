"""The light UniFormer: the late stages compute only the tokens that cls attends to most.

Source: Li et al., "UniFormer: Unifying Convolution and Self-attention for Visual Recognition", 2023,
https://arxiv.org/abs/2201.09450, section 3.5, as the authors' code has it.
"""

from collections.abc import Collection, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtfast.layers import ConvolutionalStem, PruningRelationBlock, StridedPatchEmbed3d
from vtfast.models.backbone import init_linear, run_block
from vtfast.models.features import resolve_indices
from vtfast.models.uniformer_stages import GLOBAL_STAGE, UniFormerStages, check_stages

__all__ = ["UniFormerLight"]


class UniFormerLight(UniFormerStages):
    """Light UniFormer on clips (B, C, T, H, W) of any length, and any resolution from 32 x 32 pixels.

    A cls token joins in the third stage. What it attends to are the scores of the tokens, by which the blocks choose
    those that they compute, see `vtfast.layers.PruningRelationBlock`; scores pass from block to block with the tokens,
    and from stage to stage averaged as the places are. The head sees the mean over all tokens. In training a second
    head sees cls, and the model returns the logits of both: `loss(logits, y) + loss(cls_logits, y)`, say.

    Args:
        num_classes: classes of the heads, 0 for none.
        in_channels: channels of the clip.
        depths: blocks of each stage.
        embed_dims: channels of each stage.
        head_dim: channels of an attention head.
        mlp_ratio: hidden channels of the MLP over its channels.
        qkv_bias: whether the projections to q, k and v have a bias.
        keep: share of the tokens that a block computes, in (0, 1]. The first block with attention computes all.
        trade_off: share of a block's attention in the new scores, in [0, 1].
        layer_scale: initial value of a learned factor for each channel of the blocks' branches; None for no factor.
        drop_rate: dropout before the head.
        proj_drop_rate: dropout after the stem, the attention's projection and each layer of the MLP.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0 over the blocks.
        global_pool: "avg", or "" for a head on every token.

    Raises:
        ValueError: an option out of range.
    """

    undecayed = ("cls_token",)

    def __init__(
        self,
        *,
        num_classes: int = 400,
        in_channels: int = 3,
        depths: Sequence[int] = (2, 5, 8, 2),
        embed_dims: Sequence[int] = (56, 112, 224, 448),
        head_dim: int = 28,
        mlp_ratio: float = 3.0,
        qkv_bias: bool = True,
        keep: float = 0.5,
        trade_off: float = 0.5,
        layer_scale: float | None = None,
        drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        drop_path_rate: float = 0.05,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        check_stages(depths, embed_dims, head_dim)

        def make_embedding(stage: int) -> nn.Module:
            if stage == 0:
                return ConvolutionalStem(in_channels, embed_dims[0])
            return StridedPatchEmbed3d(embed_dims[stage - 1], embed_dims[stage], (1, 2, 2), (1, 2, 2))

        def make_global_block(dim: int, hidden_dim: int, first: bool, **options: Any) -> nn.Module:
            share = 1.0 if first else keep
            return PruningRelationBlock(
                dim, dim // head_dim, hidden_dim, keep=share, trade_off=trade_off, qkv_bias=qkv_bias, **options
            )

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
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dims[2]))
        self.cls_upsample: nn.Module = nn.Linear(embed_dims[2], embed_dims[3])
        self.norm_cls: nn.Module = nn.LayerNorm(embed_dims[3])
        self.pos_drop = nn.Dropout(proj_drop_rate)
        self.head_drop = nn.Dropout(drop_rate)
        self._add_head(stage_info, num_classes, global_pool)
        self._init_global_stages()
        init_linear(self.cls_upsample)

    def forward(  # type: ignore[override]
        self,
        clip: Tensor,  # [B, C, T, H, W]
    ) -> Tensor | tuple[Tensor, Tensor]:  # [B, num_classes]; in training twice
        """Logits; in training a pair, of the head on all tokens and of the head on cls."""
        x, cls, _ = self._run(clip, self.num_stages - 1)
        logits = self.forward_head(self._normalise(x))
        if not self.training or cls is None:
            return logits
        return logits, self.head_cls(self.norm_cls(cls[:, 0]))

    def forward_features(
        self,
        clip: Tensor,  # [B, C, T, H, W]
    ) -> Tensor:  # [B, T', H', W', num_features]
        """The tokens of the last stage, normalised, channels last, without cls."""
        return self._normalise(self._run(clip, self.num_stages - 1)[0])

    def forward_intermediates(
        self,
        clip: Tensor,  # [B, C, T, H, W]
        indices: Sequence[int] | None = None,
    ) -> list[Tensor]:  # each [B, C', T', H', W']
        """The output of the stages `indices` (all if None) as feature maps, without cls and before the final norm.

        Raises:
            ValueError: a stage that does not exist, stages out of order or none.
        """
        wanted = resolve_indices(indices, len(self.stage_info))
        return self._run(clip, wanted[-1], wanted)[2]

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces both heads, see `Backbone.reset_classifier`."""
        super().reset_classifier(num_classes, global_pool)
        self.head_cls: nn.Module = nn.Identity()
        if isinstance(self.head, nn.Linear):
            like = self.head.weight
            head = nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)
            self._init_head(head)
            self.head_cls = head

    def _run(
        self,
        clip: Tensor,  # [B, C, T, H, W]
        last: int,
        wanted: Collection[int] = (),
    ) -> tuple[Tensor, Tensor | None, list[Tensor]]:  # [B, T', H', W', C'], [B, 1, C'], each [B, C', T', H', W']
        """The tokens after the stage `last`, cls if it has joined, and the feature maps after the stages `wanted`."""
        x, maps = clip, []
        cls: Tensor | None = None
        scores: Tensor | None = None
        for stage in range(last + 1):
            if scores is not None:
                scores = _halved(scores, x)
            x = self._embed(stage, x)
            if stage < GLOBAL_STAGE:
                x = self._run_blocks(stage, x)
            else:
                cls = self.cls_token.expand(x.shape[0], -1, -1) if cls is None else self.cls_upsample(cls)
                for block in self._blocks(stage):
                    x, cls, scores = run_block(block, x, cls, scores, recompute=self.grad_checkpointing)
            if stage in wanted:
                maps.append(x.permute(0, 4, 1, 2, 3))
        return x, cls, maps

    def _remove_stages(self, behind: int) -> tuple[str, ...]:
        names = super()._remove_stages(behind)
        self.norm_cls = nn.Identity()
        names = (*names, "norm_cls.", "head_cls.")
        if behind < 3:
            self.cls_upsample = nn.Identity()
            names = (*names, "cls_upsample.")
        if behind < 2:
            del self.cls_token
            names = (*names, "cls_token")
        return names


def _halved(
    scores: Tensor,  # [B, T*H*W]
    x: Tensor,  # [B, T, H, W, C]
) -> Tensor:  # [B, T*(H//2)*(W//2)]
    """The scores of the places of the next stage: means, scaled so that their sum stays."""
    pooled = F.avg_pool2d(scores.unflatten(1, x.shape[1:4]), 2).flatten(1)
    return pooled * (scores.sum(dim=1, keepdim=True) / pooled.sum(dim=1, keepdim=True))
