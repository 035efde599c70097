"""TimeSformer as timesformer-pytorch has it: divided space-time attention with rotary positions and gated MLPs.

It differs from the authors' TimeSformer in more than names, so that neither takes the other's weights: the cls token
attends to the whole clip in both attentions of a block and every group attends to it, queries and keys are turned
where the authors add position embeddings, the MLP is a GEGLU, and qkv has no bias.

Source: timesformer-pytorch 0.4.1, https://github.com/lucidrains/TimeSformer-pytorch, after Bertasius et al., "Is
Space-Time Attention All You Need for Video Understanding?", 2021.
"""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vtfast.layers import DividedAttention, Geglu, PatchEmbed3d, axial_rotary, frame_rotary, token_shift
from vtfast.models.attention import AttentionStep
from vtfast.models.features import StageInfo, resolve_indices
from vtfast.models.preprocessing import Preprocessing
from vtfast.models.registry import register_model
from vtfast.models.space_time import SpaceTimeBackbone, feature_map
from vtfast.ops._arguments import Triple

__all__ = ["TimeSformerLucidrains", "timesformer_lucidrains"]

Rotary = tuple[Tensor, Tensor] | None  # cos and sin, each [T or 1, H or 1, W or 1, R]


class Step(nn.Module):
    """Attention over time or space on a normalised residual branch, with or without token shift."""

    def __init__(self, dim: int, num_heads: int, scheme: str, shift: bool, head_dim: int, dropout: float) -> None:
        super().__init__()
        self.shift = shift
        self.norm = nn.LayerNorm(dim)
        self.attn = DividedAttention(
            dim, num_heads, scheme, semantics="lucidrains", head_dim=head_dim, qkv_bias=False, dropout=dropout
        )

    def forward(
        self,
        x: Tensor,  # [B, 1 + T*H*W, C]
        grid: Triple,
        rotary: Rotary,
        mask: Tensor | None,  # [B, T], bool
    ) -> Tensor:  # [B, 1 + T*H*W, C]
        normed = self.norm(x)
        if self.shift:
            normed = token_shift(normed, grid)
        out: Tensor = self.attn(normed, grid, frame_mask=mask, rotary=rotary, residual=x)
        return out


class Block(nn.Module):
    """Attention over time, attention over space, gated MLP."""

    def __init__(
        self, dim: int, num_heads: int, shift: bool, head_dim: int, dropout: float, mlp_dropout: float
    ) -> None:
        super().__init__()
        self.shift = shift
        self.steps = nn.ModuleDict(
            {f"over_{scheme}": Step(dim, num_heads, scheme, shift, head_dim, dropout) for scheme in ("time", "space")}
        )
        self.norm = nn.LayerNorm(dim)
        self.mlp = Geglu(dim, 4 * dim, mlp_dropout)

    def forward(
        self,
        x: Tensor,  # [B, 1 + T*H*W, C]
        grid: Triple,
        rotary: tuple[Rotary, Rotary],  # of time and of space
        mask: Tensor | None,  # [B, T], bool
    ) -> Tensor:  # [B, 1 + T*H*W, C]
        for step, tables in zip(self.steps.values(), rotary, strict=True):
            x = step(x, grid, tables, mask)
        normed = self.norm(x)
        if self.shift:
            normed = token_shift(normed, grid)
        out: Tensor = self.mlp(normed, x)
        return out


class TimeSformerLucidrains(SpaceTimeBackbone):
    """timesformer-pytorch's TimeSformer on clips (B, C, T, H, W) of any length and resolution that the patch divides.

    With position embeddings in place of rotary ones, clips have at most `num_frames` frames of `image_size`. Shifted
    tokens come from the clip's own frames, where timesformer-pytorch assumes `num_frames` of them and is silently
    wrong otherwise. Tokens that are shifted leave a masked frame: only without `shift_tokens` is a mask the same as
    leaving frames out at the end.

    Args:
        num_classes: classes of the head, 0 for none.
        in_channels: channels of the clip.
        image_size: side of a frame in pixels, for position embeddings; a multiple of `patch_size`.
        patch_size: side of a patch in pixels.
        num_frames: frames of a clip, for position embeddings.
        embed_dim: channels of a token.
        depth: number of blocks.
        num_heads: attention heads.
        head_dim: channels of a head; `num_heads * head_dim` need not be `embed_dim`.
        rotary_emb: whether rotary embedding gives the positions; if not, learnt embeddings of every token do.
        shift_tokens: whether a third of the channels comes from the frame after and a third from the one before.
        attn_dropout: dropout after the attention's projection.
        ff_dropout: dropout of the hidden layer of the MLP.
        global_pool: "token", the head on the cls token, or "" for a head on every token.

    Raises:
        TypeError: an option of another type.
        ValueError: an option out of range.
    """

    def __init__(
        self,
        *,
        num_classes: int = 400,
        in_channels: int = 3,
        image_size: int = 224,
        patch_size: int = 16,
        num_frames: int = 8,
        embed_dim: int = 512,
        depth: int = 12,
        num_heads: int = 8,
        head_dim: int = 64,
        rotary_emb: bool = True,
        shift_tokens: bool = False,
        attn_dropout: float = 0.0,
        ff_dropout: float = 0.0,
        global_pool: str = "token",
    ) -> None:
        super().__init__()
        if patch_size < 1 or image_size < 1 or image_size % patch_size:
            raise ValueError(f"patch_size must divide image_size = {image_size}, got {patch_size}")
        if num_frames < 1 or depth < 1:
            raise ValueError(f"num_frames and depth must be at least 1, got {num_frames} and {depth}")
        if rotary_emb and (head_dim < 4 or head_dim % 2):
            raise ValueError(f"head_dim must be even and at least 4 with rotary_emb, got {head_dim}")
        self.image_size, self.patch_size, self.num_frames = image_size, patch_size, num_frames
        self.head_dim, self.shift_tokens = head_dim, shift_tokens
        self.patch_embed = PatchEmbed3d(in_channels, embed_dim, (1, patch_size, patch_size), norm=False)
        self.cls_token = nn.Parameter(torch.randn(1, 1, embed_dim))
        self.pos_embed = None
        if not rotary_emb:
            places = num_frames * (image_size // patch_size) ** 2
            self.pos_embed = nn.Parameter(torch.randn(1, 1 + places, embed_dim))
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, shift_tokens, head_dim, attn_dropout, ff_dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.head_drop = nn.Identity()
        stage_info = [StageInfo(i, embed_dim, (1, patch_size, patch_size)) for i in range(depth)]
        self._add_head(stage_info, num_classes, global_pool)

    def forward(  # type: ignore[override]
        self,
        clip: Tensor,  # [B, C, T, H, W]
        mask: Tensor | None = None,  # [B, T], bool
        *,
        return_attention: bool = False,
    ) -> Tensor | tuple[Tensor, list[AttentionStep]]:  # [B, num_classes]
        """Logits; with `return_attention` also what every step of every block attends to, see `record_attention`.

        Where `mask` is False, a frame is not attended to over time, nor by the cls token.
        """
        return self._logits(clip, mask, return_attention=return_attention)

    def forward_features(
        self,
        clip: Tensor,  # [B, C, T, H, W]
        mask: Tensor | None = None,  # [B, T], bool
    ) -> Tensor:  # [B, 1 + T*H'*W', embed_dim]
        """The tokens of the last block, normalised: cls, then those of the grid, t slowest."""
        x, _ = self._forward_blocks(clip, mask=mask)
        return self.norm(x)

    def forward_intermediates(
        self,
        clip: Tensor,  # [B, C, T, H, W]
        indices: Sequence[int] | None = None,
        mask: Tensor | None = None,  # [B, T], bool
    ) -> list[Tensor]:  # each [B, embed_dim, T, H', W']
        """The output of the blocks `indices` (all if None) as feature maps, without cls and before the final norm."""
        return self._forward_blocks(clip, resolve_indices(indices, len(self.stage_info)), mask)[1]

    def _forward_blocks(
        self,
        clip: Tensor,  # [B, C, T, H, W]
        wanted: Collection[int] = (),
        mask: Tensor | None = None,  # [B, T], bool
    ) -> tuple[Tensor, list[Tensor]]:  # [B, 1 + T*H'*W', embed_dim]; each [B, embed_dim, T, H', W']
        x, grid = self._embed(clip, mask)
        x, kept = self._run_blocks(x, grid, self._rotary(grid, x), mask, wanted=wanted)
        return x, [feature_map(tokens, x.shape[0], grid) for tokens in kept]

    def _init_head(self, head: nn.Linear) -> None:
        """As in `nn.Linear`, like all other layers."""

    def _embed(
        self,
        clip: Tensor,  # [B, C, T, H, W]
        mask: Tensor | None,  # [B, T], bool
    ) -> tuple[Tensor, Triple]:  # [B, 1 + T*H'*W', embed_dim], (T, H', W')
        """Tokens with cls before them, and position embeddings if the model has them."""
        self._check_size(clip)
        tokens = self.patch_embed(clip)
        batch, frames, height, width, _ = tokens.shape
        grid = (frames, height, width)
        _check_mask(mask, batch, frames)
        x = torch.cat([self.cls_token.expand(batch, -1, -1), tokens.flatten(1, 3)], dim=1)
        if self.pos_embed is not None:
            x = x + self.pos_embed[:, : x.shape[1]]
        return x, grid

    def _check_size(self, clip: Tensor) -> None:
        """Refuses sizes that would be padded or have no positions; all else the patch embedding checks."""
        if not isinstance(clip, Tensor) or clip.dim() != 5:
            return
        size = tuple(clip.shape[2:])
        if any(side % self.patch_size for side in size[1:]):
            wanted = f"clip must have a height and width that patch_size = {self.patch_size} divides"
            raise ValueError(f"{wanted}, got (H, W) = {size[1:]}")
        if self.pos_embed is not None and (size[1:] != (self.image_size,) * 2 or size[0] > self.num_frames):
            wanted = f"at most {self.num_frames} frames of {self.image_size} x {self.image_size}"
            raise ValueError(f"clip must have {wanted} without rotary_emb, got (T, H, W) = {size}")

    def _rotary(
        self,
        grid: Triple,
        x: Tensor,  # [...]
    ) -> tuple[Rotary, Rotary]:
        """The tables of time and of space."""
        if self.pos_embed is not None:
            return None, None
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        frames, height, width = grid
        return (
            frame_rotary(frames, self.head_dim, device=x.device, dtype=dtype),
            axial_rotary(height, width, self.head_dim, device=x.device, dtype=dtype),
        )


def _check_mask(mask: Tensor | None, batch: int, frames: int) -> None:
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask must be a bool tensor, got {got}")
    if tuple(mask.shape) != (batch, frames):
        raise ValueError(f"mask must have shape (B, T) = {(batch, frames)}, got {tuple(mask.shape)}")


@register_model(preprocessing=Preprocessing((0.45,) * 3, (0.225,) * 3, short_side=224, frames=8, stride=32))
def timesformer_lucidrains(**config: Any) -> TimeSformerLucidrains:
    """The model of timesformer-pytorch's README, 64 M parameters; options as in `TimeSformerLucidrains`.

    Its upstream publishes no weights and no pre-processing; the one given here is TimeSformer's.
    """
    return TimeSformerLucidrains(**config)
