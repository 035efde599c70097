"""What the UniFormers share: four numbered stages, of local relations and then of global ones."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from vtfast.layers import LocalRelationBlock
from vtfast.layers.batch_norm import batch_norm, fold_all
from vtfast.layers.patch_embedding import check_clip
from vtfast.models.backbone import Backbone, init_linear, rising, run_block
from vtfast.models.features import StageInfo

Self = TypeVar("Self", bound="UniFormerStages")

STAGES = 4
GLOBAL_STAGE = 2  # the first whose blocks have attention
PATCH = (2, 4, 4)  # frames and pixels of a token of the first stage


class UniFormerStages(Backbone):
    """Modules `patch_embed1`, `blocks1` to `patch_embed4`, `blocks4`, the norm and the head, on tokens (B, T, H, W, C).

    A subclass calls `_add_stages` and then `_add_head`.
    """

    patch_embed1: nn.Module
    pos_drop: nn.Module
    blocks3: nn.ModuleList
    blocks4: nn.ModuleList
    in_channels: int
    num_stages: int  # stages that are left

    def _add_stages(
        self,
        in_channels: int,
        embed_dims: Sequence[int],
        depths: Sequence[int],
        mlp_ratio: float,
        drop_path_rate: float,
        make_embedding: Callable[[int], nn.Module],
        make_global_block: Callable[..., nn.Module],
        **options: Any,
    ) -> list[StageInfo]:
        """Makes the modules of the stages, and the norm.

        `options` are those of all blocks; `make_global_block` also gets channels of tokens and MLP, whether it is the
        first such block, and `drop_path_rate`.
        """
        self.in_channels = in_channels
        self.num_stages = STAGES
        rates = iter(rising(drop_path_rate, sum(depths)))
        for stage, depth in enumerate(depths):
            setattr(self, f"patch_embed{stage + 1}", make_embedding(stage))
            dim, blocks = embed_dims[stage], nn.ModuleList()
            for index in range(depth):
                settings = {"drop_path_rate": next(rates), **options}
                if stage < GLOBAL_STAGE:
                    blocks.append(LocalRelationBlock(dim, int(dim * mlp_ratio), **settings))
                else:
                    first = stage == GLOBAL_STAGE and index == 0
                    blocks.append(make_global_block(dim, int(dim * mlp_ratio), first, **settings))
            setattr(self, f"blocks{stage + 1}", blocks)
        self.norm = nn.BatchNorm3d(embed_dims[-1])
        frames, height, width = PATCH
        return [StageInfo(i, dim, (frames, height << i, width << i)) for i, dim in enumerate(embed_dims)]

    def fuse(self: Self) -> Self:
        """Folds the batch normalisation in front of a linear layer, or behind a convolution, into it; for inference.

        Logits and features stay the same, to rounding. A second call changes nothing. The state dict then lacks the
        entries of these normalisations (`blocks1.0.norm1.weight`...), and the weights behind them are others: load
        checkpoints before. The last norm stays, because `forward_features` gives its output.

        Returns:
            The model itself.

        Raises:
            RuntimeError: the model is in training mode, where the statistics are those of each batch.
            ValueError: a normalisation has no running statistics.
        """
        fold_all(self)
        return self

    def _init_global_stages(self) -> None:
        """Draws the linear layers of the late stages; those of the early ones are drawn as convolutions are."""
        for blocks in (self.blocks3, self.blocks4):
            blocks.apply(init_linear)

    def _embed(
        self,
        stage: int,
        x: Tensor,  # [B, T, H, W, C]; for the first stage the clip [B, C, T, H, W]
    ) -> Tensor:  # [B, T', H', W', C']
        """The tokens that enter the blocks of a stage."""
        if stage == 0:
            check_clip(x, self.in_channels)
            least = PATCH[1] << (self.num_stages - 1)
            if min(x.shape[3:]) < least:
                height, width = x.shape[3:]
                raise ValueError(f"clip must have at least {least} x {least} pixels, got (H, W) = ({height}, {width})")
            return self.pos_drop(self.patch_embed1(x))
        embedding: nn.Module = getattr(self, f"patch_embed{stage + 1}")
        return embedding(x.permute(0, 4, 1, 2, 3))

    def _run_blocks(
        self,
        stage: int,
        x: Tensor,  # [B, T, H, W, C]
    ) -> Tensor:  # [B, T, H, W, C]
        for block in self._blocks(stage):
            x = run_block(block, x, recompute=self.grad_checkpointing)
        return x

    def _blocks(self, stage: int) -> Iterable[nn.Module]:
        return getattr(self, f"blocks{stage + 1}")

    def _normalise(
        self,
        x: Tensor,  # [B, T, H, W, C]
    ) -> Tensor:  # [B, T, H, W, C]
        return batch_norm(x, self.norm)

    def _remove_stages(self, behind: int) -> tuple[str, ...]:
        names = [f"{part}{stage + 1}" for stage in range(behind + 1, STAGES) for part in ("patch_embed", "blocks")]
        for name in names:
            if hasattr(self, name):
                delattr(self, name)
        self.num_stages = behind + 1
        return tuple(f"{name}." for name in names)

    def _pool(
        self,
        x: Tensor,  # [B, T', H', W', num_features]
    ) -> Tensor:  # [B, num_features]
        return x.mean(dim=(1, 2, 3))


def check_stages(depths: Sequence[int], embed_dims: Sequence[int], head_dim: int) -> None:
    """Raises ValueError unless these are four stages, the last two of which heads of `head_dim` channels divide."""
    for name, sizes in {"depths": depths, "embed_dims": embed_dims}.items():
        if len(sizes) != STAGES or min(sizes) < 1:
            raise ValueError(f"{name} must be {STAGES} ints of at least 1, got {sizes}")
    if head_dim < 1 or any(dim % head_dim for dim in embed_dims[2:]):
        raise ValueError(
            f"head_dim must divide the embed_dims {tuple(embed_dims[2:])} of the last stages, got {head_dim}"
        )
