"""TimeSformer: a ViT on clips, with self-attention over time and space by one of five schemes.

Source: Bertasius et al., "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021,
https://arxiv.org/abs/2102.05095.
"""

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vtfast.layers import DividedAttention, Mlp, PatchEmbed3d, StochasticDepth, add_branch
from vtfast.layers.linear import linear
from vtfast.layers.position_embedding import resize_places, resize_sequence
from vtfast.models.backbone import init_linear, normal_parameter, pair, rising
from vtfast.models.features import StageInfo
from vtfast.models.preprocessing import Preprocessing
from vtfast.models.registry import register_model
from vtfast.models.space_time import SpaceTimeBackbone, feature_map
from vtfast.ops._arguments import Triple

__all__ = ["TimeSformer", "timesformer_base", "timesformer_hr", "timesformer_l"]

# The attention schemes of a block, in their order.
STEPS = {
    "divided": ("time", "space"),
    "joint": ("joint",),
    "space": ("space",),
    "sparse": ("local", "global"),
    "axial": ("time", "width", "height"),
}


class Step(nn.Module):
    """Attention by one scheme on a normalised residual branch, whose end is a linear layer `fc` in all but the last.

    Stochastic depth acts before `fc`, whose bias therefore always remains. As in the published code, it drops single
    places from attention over time and single frames from attention inside frames; from any other, whole clips.
    """

    def __init__(
        self, dim: int, num_heads: int, scheme: str, last: bool, drop_path_rate: float, **attention: Any
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.attn = DividedAttention(dim, num_heads, scheme, **attention)
        self.fc = None if last else nn.Linear(dim, dim)
        self.drop_path = StochasticDepth(drop_path_rate)

    def forward(
        self,
        x: Tensor,  # [B, 1 + T*H*W, C]
        grid: Triple,
    ) -> Tensor:  # [B, 1 + T*H*W, C]
        if self.attn.scheme == "time":
            return self._over_time(x, grid)
        if self.attn.scheme == "space" and self.drop_path.active and grid[0] > 1:
            return self._of_kept_frames(x, grid)
        if self.fc is None:
            return add_branch(x, partial(self.attn, grid=grid), self.norm(x), self.drop_path)
        return linear(self.drop_path(self.attn(self.norm(x), grid)), self.fc, residual=x)

    def _over_time(
        self,
        x: Tensor,  # [B, 1 + T*H*W, C]
        grid: Triple,
    ) -> Tensor:  # [B, 1 + T*H*W, C]
        """The attention and `fc` that leave cls as it is."""
        branch = self.attn(self.norm(x), grid)
        if self.drop_path.active:
            sequences = branch.new_empty(x.shape[0] * grid[1] * grid[2], 1)
            scale = self.drop_path.sample_scale(sequences).view(x.shape[0], 1, grid[1] * grid[2], 1)
            branch = (branch.unflatten(1, (grid[0], -1)) * scale).flatten(1, 2)
        return torch.cat([x[:, :1], linear(branch, self.fc, residual=x[:, 1:])], dim=1)  # type: ignore[arg-type]

    def _of_kept_frames(
        self,
        x: Tensor,  # [B, 1 + T*H*W, C]
        grid: Triple,
    ) -> Tensor:  # [B, 1 + T*H*W, C]
        """The attention inside frames; a dropped frame is left out of the mean that cls gets, too."""
        normed = self.norm(x)
        frames = normed.new_empty(x.shape[0] * grid[0], 1)
        scale = self.drop_path.sample_scale(frames).view(x.shape[0], grid[0])
        branch = self.attn(normed, grid, frame_mask=scale > 0)
        scale = torch.cat([scale.mean(dim=1, keepdim=True), scale.repeat_interleave(grid[1] * grid[2], dim=1)], dim=1)
        return x + branch * scale.unsqueeze(-1).to(branch.dtype)


class Block(nn.Module):
    """The attention steps of a scheme and an MLP, each on a normalised residual branch."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        schemes: Sequence[str],
        mlp_ratio: float,
        drop_path_rate: float,
        dropout: float,
        **attention: Any,
    ) -> None:
        super().__init__()
        # By name, so that no scheme takes the weights of another; "global" alone would be a keyword in traced code.
        self.steps = nn.ModuleDict()
        for scheme in schemes:
            last = scheme == schemes[-1]
            step = Step(dim, num_heads, scheme, last, drop_path_rate, dropout=dropout, **attention)
            self.steps[f"over_{scheme}"] = step
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dropout)
        self.drop_path = StochasticDepth(drop_path_rate)

    def forward(
        self,
        x: Tensor,  # [B, 1 + T*H*W, C]
        grid: Triple,
    ) -> Tensor:  # [B, 1 + T*H*W, C]
        for step in self.steps.values():
            x = step(x, grid)
        return add_branch(x, self.mlp, self.norm(x), self.drop_path)


class TimeSformer(SpaceTimeBackbone):
    """TimeSformer on clips (B, C, T, H, W) of any length, and of any height and width that the patch divides.

    Tokens are (B, 1 + T*H*W, C): cls, then the grid with w fastest (the published code has t fastest, which no weight
    depends on). Positions of another size are those of the nearest place and the nearest frame; unlike in the
    published code also where only the shape of the grid differs, not its number of places.

    The schemes of attention, each with its own projections in a block:

    * "divided": over time, then inside a frame. cls takes no part in the first; in the second it attends in every
      frame, and the mean over the frames is its result.
    * "joint": over the whole clip.
    * "space": inside a frame only. The frames are samples of their own up to their mean, before the last norm.
    * "sparse": inside quarters of height and width over all frames, then over every second token of the clip along
      each axis.
    * "axial": along time, then along the width, then along the height.

    The authors published results of the last two, but no code. Their numbers of parameters, 121.4 M and 156.8 M, tell
    that each further step adds to a ViT what the step over time of "divided" adds: a norm, an attention and a linear
    layer that starts at zero. The paper names the neighbourhoods: F x H/2 x W/2 patches, taken here as the quarters
    of the frame, and a stride of 2 along time, height and width. cls it leaves open; here it does as in "divided":
    nothing in time, and the mean over the groups in all other steps.

    Args:
        num_classes: classes of the head, 0 for none.
        in_channels: channels of the clip.
        patch_size: patch in pixels, (H, W) or the side of a square.
        image_size: height and width in pixels, or the side of a square, that the positions are learned for.
        num_frames: frames that the positions in time are learned for.
        attention_type: "divided", "joint", "space", "sparse" or "axial".
        embed_dim: channels of a token.
        depth: blocks.
        num_heads: attention heads.
        mlp_ratio: hidden channels of the MLP over its channels.
        qkv_bias: whether the packed projection of an attention has a bias.
        drop_rate: dropout after the positions are added, again after those in time, and before the head.
        proj_drop_rate: dropout after the attention's projection and after each layer of the MLP.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0 over the blocks.
        position_resize: how a checkpoint's positions of another image size are resized when it is loaded, "upstream"
            (the nearest in the row of all places, as the authors' code does, which scrambles them) or "corrected" (the
            nearest in height and width, as in the forward).
        global_pool: "token" for a head on cls, or "" for a head on every token.

    Raises:
        TypeError: an option of another type.
        ValueError: an option out of range.
    """

    patch_embed: PatchEmbed3d

    def __init__(
        self,
        *,
        num_classes: int = 400,
        in_channels: int = 3,
        patch_size: int | Sequence[int] = 16,
        image_size: int | Sequence[int] = 224,
        num_frames: int = 8,
        attention_type: str = "divided",
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        position_resize: str = "upstream",
        global_pool: str = "token",
    ) -> None:
        super().__init__()
        if attention_type not in STEPS:
            raise ValueError(f"attention_type must be one of {', '.join(STEPS)}, got {attention_type!r}")
        if position_resize not in ("upstream", "corrected"):
            raise ValueError(f"position_resize must be upstream or corrected, got {position_resize!r}")
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        if num_frames < 1:
            raise ValueError(f"num_frames must be at least 1, got {num_frames}")
        patch, image = pair(patch_size, "patch_size"), pair(image_size, "image_size")
        if image[0] % patch[0] or image[1] % patch[1]:
            raise ValueError(f"patch_size must divide image_size = {image}, got {patch}")
        self.attention_type = attention_type
        self.schemes = STEPS[attention_type]
        self.position_resize = position_resize
        self.places = (image[0] // patch[0], image[1] // patch[1])
        self.patch_embed = PatchEmbed3d(in_channels, embed_dim, (1, *patch), norm=False)
        self.cls_token = normal_parameter(1, 1, embed_dim)
        self.pos_embed = normal_parameter(1, 1 + self.places[0] * self.places[1], embed_dim)
        self.time_embed = None
        if attention_type != "space":
            self.time_embed = nn.Parameter(torch.zeros(1, num_frames, embed_dim))
        self.pos_drop = nn.Dropout(drop_rate)
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, self.schemes, mlp_ratio, rate, proj_drop_rate, qkv_bias=qkv_bias)
            for rate in rising(drop_path_rate, depth)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.head_drop = nn.Dropout(drop_rate)
        self._add_head([StageInfo(i, embed_dim, (1, *patch)) for i in range(depth)], num_classes, global_pool)
        self.apply(init_linear)
        for module in self.modules():
            if isinstance(module, Step) and module.fc is not None:
                nn.init.zeros_(module.fc.weight)

    def forward_features(
        self,
        clip: Tensor,  # [B, C, T, H, W]
    ) -> Tensor:  # [B, 1 + T*H'*W', C], or [B, 1 + H'*W', C] for "space"
        """The tokens of the last block, cls first, normalised; for "space" their mean over the frames."""
        x, _ = self._forward_blocks(clip)
        return self.norm(x)

    def _forward_blocks(
        self,
        clip: Tensor,  # [B, C, T, H, W]
        wanted: Collection[int] = (),
    ) -> tuple[Tensor, list[Tensor]]:  # [B, 1 + N, C]; each [B, C, T, H', W']
        x, grid = self._embed(clip)
        batch, frames, height, width = x.shape[0], *grid
        if self.attention_type != "space":
            x, kept = self._run_blocks(x, grid, wanted=wanted)
        else:
            x, kept = self._run_blocks(x.flatten(0, 1), (1, height, width), wanted=wanted)
            x = x.unflatten(0, (batch, frames)).mean(dim=1)
        return x, [feature_map(tokens, batch, grid) for tokens in kept]

    def _embed(
        self,
        clip: Tensor,  # [B, C, T, H, W]
    ) -> tuple[Tensor, Triple]:  # [B, 1 + T*H'*W', C], for "space" [B, T, 1 + H'*W', C]
        """Tokens with their positions, cls first, and the size (T, H', W') of their grid."""
        self._check_size(clip)
        x = self.patch_embed(clip)  # [B, T, H', W', C]
        batch, frames, height, width, _ = x.shape
        positions = resize_places(self.pos_embed, self.places, (height, width))
        cls = self.cls_token + positions[:, :1]
        x = self.pos_drop(x.flatten(2, 3) + positions[:, 1:])
        if self.time_embed is None:
            cls = self.pos_drop(cls.expand(batch, frames, -1, -1))
            return torch.cat([cls, x], dim=2), (frames, height, width)
        x = self.pos_drop(x + resize_sequence(self.time_embed, frames).unsqueeze(2))
        cls = self.pos_drop(cls.expand(batch, -1, -1))
        return torch.cat([cls, x.flatten(1, 2)], dim=1), (frames, height, width)

    def _check_size(self, clip: Tensor) -> None:
        """Refuses what the patch embedding would pad; all else it checks itself."""
        if not isinstance(clip, Tensor) or clip.dim() != 5:
            return
        patch, size = self.patch_embed.patch_size[1:], tuple(clip.shape[3:])
        if size[0] % patch[0] or size[1] % patch[1]:
            raise ValueError(f"clip must have a height and width that the patch {patch} divides, got (H, W) = {size}")


def _preprocessing(side: int, frames: int, stride: int) -> Preprocessing:
    return Preprocessing((0.45,) * 3, (0.225,) * 3, short_side=side, crop=side, frames=frames, stride=stride)


@register_model(preprocessing=_preprocessing(224, frames=8, stride=32))
def timesformer_base(**config: Any) -> TimeSformer:
    """TimeSformer, 8 frames of 224 x 224, 122 M parameters; options as in `TimeSformer`."""
    return TimeSformer(**config)


@register_model(preprocessing=_preprocessing(448, frames=16, stride=16))
def timesformer_hr(**config: Any) -> TimeSformer:
    """TimeSformer-HR, 16 frames of 448 x 448, 122 M parameters; options as in `TimeSformer`."""
    return TimeSformer(**({"image_size": 448, "num_frames": 16} | config))


@register_model(preprocessing=_preprocessing(224, frames=96, stride=4))
def timesformer_l(**config: Any) -> TimeSformer:
    """TimeSformer-L, 96 frames of 224 x 224, 122 M parameters; options as in `TimeSformer`."""
    return TimeSformer(**({"num_frames": 96} | config))
