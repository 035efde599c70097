"""Video Swin Transformer: self-attention in shifted 3D windows, in four stages of falling resolution.

Source: Liu et al., "Video Swin Transformer", CVPR 2022, https://arxiv.org/abs/2106.13230.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from vtfast.layers import (
    Mlp,
    PatchEmbed3d,
    PatchMerging,
    StochasticDepth,
    WindowAttention3d,
    add_branch,
)
from vtfast.models.backbone import Backbone, init_linear, rising, run_block
from vtfast.models.features import StageInfo, resolve_indices
from vtfast.models.preprocessing import Preprocessing
from vtfast.models.registry import register_model
from vtfast.ops._arguments import triple

__all__ = ["VideoSwin", "swin3d_b", "swin3d_b_ssv2", "swin3d_l", "swin3d_s", "swin3d_t"]


class Block(nn.Module):
    """Window attention and MLP, each on a normalised residual branch."""

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float, drop_path_rate: float, dropout: float, **attention: Any
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention3d(dim, num_heads, dropout=dropout, **attention)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dropout)
        self.drop_path = StochasticDepth(drop_path_rate)

    def forward(
        self,
        x: Tensor,  # [B, T, H, W, C]
    ) -> Tensor:  # [B, T, H, W, C]
        x = add_branch(x, self.attn, self.norm1(x), self.drop_path)
        return add_branch(x, self.mlp, self.norm2(x), self.drop_path)


class Stage(nn.Module):
    """Patch merging (not in the first stage) and a sequence of blocks, every second one with shifted windows."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window: tuple[int, int, int],
        drop_path_rates: Sequence[float],
        merge: bool,
        **block: Any,
    ) -> None:
        super().__init__()
        self.merging = PatchMerging(dim // 2) if merge else nn.Identity()
        shifts = ((0, 0, 0), (window[0] // 2, window[1] // 2, window[2] // 2))
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, window=window, shift=shifts[i % 2], drop_path_rate=rate, **block)
            for i, rate in enumerate(drop_path_rates)
        )

    def forward(
        self,
        x: Tensor,  # [B, T, H, W, C]
        recompute: bool = False,
    ) -> Tensor:  # [B, T, H', W', C']
        x = self.merging(x)
        for block in self.blocks:
            x = run_block(block, x, recompute=recompute)
        return x


class VideoSwin(Backbone):
    """Video Swin Transformer on clips (B, C, T, H, W) of any length and resolution.

    Sizes that the patch, the merging or the window do not divide are padded as in the published code.

    Args:
        num_classes: classes of the head, 0 for none.
        in_channels: channels of the clip.
        patch_size: patch (T, H, W), in frames and pixels.
        embed_dim: channels of the first stage; each further one has twice as many.
        depths: blocks of each stage.
        num_heads: attention heads of each stage.
        window: window (T, H, W), in tokens.
        mlp_ratio: hidden channels of the MLP over its channels.
        patch_norm: whether a LayerNorm follows the patch embedding.
        drop_rate: dropout before the head.
        proj_drop_rate: dropout after the attention's projection and after each layer of the MLP.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0 over the blocks.
        shrunk_window_bias: how a window that shrinks to a small grid reads its bias table, "upstream" (as the
            published weights were trained) or "corrected" (true offsets).
        global_pool: "avg", or "" for a head on every token.

    Raises:
        TypeError: an option of another type.
        ValueError: an option out of range.
    """

    undecayed = ("relative_position_bias_table",)

    def __init__(
        self,
        *,
        num_classes: int = 400,
        in_channels: int = 3,
        patch_size: int | Sequence[int] = (2, 4, 4),
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window: int | Sequence[int] = (8, 7, 7),
        mlp_ratio: float = 4.0,
        patch_norm: bool = True,
        drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        shrunk_window_bias: str = "upstream",
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        if not depths or len(depths) != len(num_heads):
            raise ValueError(f"depths and num_heads must name the same stages, got {depths} and {num_heads}")
        self.window = triple(window, "window", 1)
        self.patch_embed = PatchEmbed3d(in_channels, embed_dim, patch_size, patch_norm)
        rates = iter(rising(drop_path_rate, sum(depths)))
        self.stages = nn.ModuleList(
            Stage(
                embed_dim << i,
                num_heads[i],
                self.window,
                [next(rates) for _ in range(depth)],
                merge=i > 0,
                mlp_ratio=mlp_ratio,
                dropout=proj_drop_rate,
                shrunk_window_bias=shrunk_window_bias,
            )
            for i, depth in enumerate(depths)
        )
        pt, ph, pw = self.patch_embed.patch_size
        stage_info = [StageInfo(i, embed_dim << i, (pt, ph << i, pw << i)) for i in range(len(depths))]
        self.norm = nn.LayerNorm(stage_info[-1].channels)
        self.head_drop = nn.Dropout(drop_rate)
        self._add_head(stage_info, num_classes, global_pool)
        self.apply(init_linear)

    def forward_features(
        self,
        clip: Tensor,  # [B, C, T, H, W]
    ) -> Tensor:  # [B, T', H', W', num_features]
        """The tokens of the last stage, normalised, channels last."""
        x = self.patch_embed(clip)
        for stage in self.stages:
            x = stage(x, self.grad_checkpointing)
        return self.norm(x)

    def forward_intermediates(
        self,
        clip: Tensor,  # [B, C, T, H, W]
        indices: Sequence[int] | None = None,
    ) -> list[Tensor]:  # each [B, C', T', H', W']
        """The output of the stages `indices` (all if None) as feature maps, before merging and final norm."""
        wanted = resolve_indices(indices, len(self.stage_info))
        x, maps = self.patch_embed(clip), []
        for index, stage in enumerate(self.stages[: wanted[-1] + 1]):
            x = stage(x, self.grad_checkpointing)
            if index in wanted:
                maps.append(x.permute(0, 4, 1, 2, 3))
        return maps

    def _pool(
        self,
        x: Tensor,  # [B, T', H', W', num_features]
    ) -> Tensor:  # [B, num_features]
        return x.mean(dim=(1, 2, 3))


def _build(published: dict[str, Any], config: dict[str, Any]) -> VideoSwin:
    return VideoSwin(**(published | config))


@register_model(preprocessing=Preprocessing())
def swin3d_t(**config: Any) -> VideoSwin:
    """Video Swin-T, 28 M parameters; options as in `VideoSwin`."""
    return _build({"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)}, config)


@register_model(preprocessing=Preprocessing())
def swin3d_s(**config: Any) -> VideoSwin:
    """Video Swin-S, 50 M parameters; options as in `VideoSwin`."""
    return _build({"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)}, config)


@register_model(preprocessing=Preprocessing())
def swin3d_b(**config: Any) -> VideoSwin:
    """Video Swin-B, 88 M parameters; options as in `VideoSwin`."""
    published = {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32), "drop_path_rate": 0.3}
    return _build(published, config)


@register_model(preprocessing=Preprocessing(), num_classes=174)
def swin3d_b_ssv2(**config: Any) -> VideoSwin:
    """Video Swin-B with windows (16, 7, 7), for Something-Something v2; options as in `VideoSwin`."""
    return swin3d_b(**({"window": (16, 7, 7), "drop_path_rate": 0.4, "num_classes": 174} | config))


@register_model(preprocessing=Preprocessing())
def swin3d_l(**config: Any) -> VideoSwin:
    """Video Swin-L, 197 M parameters; options as in `VideoSwin`."""
    published = {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48), "drop_path_rate": 0.4}
    return _build(published, config)
