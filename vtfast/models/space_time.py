"""What the TimeSformers share: cls before the tokens of the grid, and blocks of divided attention as stages."""

from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor, nn

from vtfast.models.attention import AttentionStep, record_attention
from vtfast.models.backbone import Backbone, run_block
from vtfast.models.features import resolve_indices
from vtfast.ops._arguments import Triple


class SpaceTimeBackbone(Backbone):
    """Blocks on tokens (B, 1 + T*H*W, C), cls first and w fastest; each block is a stage, and the head sees cls.

    A subclass gives `forward_features` and `_forward_blocks`.
    """

    global_pools = ("token",)
    stages_name = "blocks"
    undecayed = ("cls_token", "pos_embed", "time_embed")
    blocks: nn.ModuleList

    def forward(  # type: ignore[override]
        self,
        clip: Tensor,  # [B, C, T, H, W]
        *,
        return_attention: bool = False,
    ) -> Tensor | tuple[Tensor, list[AttentionStep]]:  # [B, num_classes]
        """Logits; with `return_attention` also what every step of every block attends to, see `record_attention`."""
        return self._logits(clip, return_attention=return_attention)

    def forward_intermediates(
        self,
        clip: Tensor,  # [B, C, T, H, W]
        indices: Sequence[int] | None = None,
    ) -> list[Tensor]:  # each [B, C, T, H', W']
        """The output of the blocks `indices` (all if None) as feature maps, without cls and before the final norm.

        Raises:
            ValueError: a block that does not exist, blocks out of order or none.
        """
        return self._forward_blocks(clip, resolve_indices(indices, len(self.stage_info)))[1]

    def _logits(
        self, *inputs: Any, return_attention: bool
    ) -> Tensor | tuple[Tensor, list[AttentionStep]]:  # [B, num_classes]
        """`forward` on the inputs of `forward_features`."""
        if not return_attention:
            return self.forward_head(self.forward_features(*inputs))
        with record_attention(self) as attention:
            return self.forward_head(self.forward_features(*inputs)), attention

    def _forward_blocks(
        self,
        clip: Tensor,  # [B, C, T, H, W]
        wanted: Collection[int] = (),
    ) -> tuple[Tensor, list[Tensor]]:  # [B, 1 + N, C]; each [B, C, T, H', W']
        """The tokens after the last block, and the feature maps after the blocks `wanted`."""
        raise NotImplementedError

    def _run_blocks(
        self,
        x: Tensor,  # [B, 1 + N, C]
        *inputs: Any,
        wanted: Collection[int],
    ) -> tuple[Tensor, list[Tensor]]:  # [B, 1 + N, C]; each [B, 1 + N, C]
        """The tokens after the last block, and those after the blocks `wanted`; `inputs` go to every block."""
        kept = []
        for index, block in enumerate(self.blocks):
            x = run_block(block, x, *inputs, recompute=self.grad_checkpointing)
            if index in wanted:
                kept.append(x)
        return x, kept

    def _pool(
        self,
        x: Tensor,  # [B, 1 + N, C]
    ) -> Tensor:  # [B, C]
        return x[:, 0]


def feature_map(
    x: Tensor,  # [B, 1 + T*H*W, C], or [B*T, 1 + H*W, C]
    batch: int,
    grid: Triple,
) -> Tensor:  # [B, C, T, H, W]
    """The tokens without cls, on their grid."""
    return x[:, 1:].reshape(batch, *grid, x.shape[-1]).permute(0, 4, 1, 2, 3)
