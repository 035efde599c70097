"""TimeSformer with divided attention in plain PyTorch, under vtfast's names: a peer that needs no package.

It computes what the published model does, and as it does: tokens with time fastest, so that the sequences of a place
are a view, and a copy of everything into frames, each with cls, and back.
"""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn


class PlainAttention(nn.Module):
    """Multi-head self-attention of sequences, by products and softmax, or fused if `sdpa`."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.sdpa = num_heads, False
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # [B, N, C] -> [B, N, C]
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        if self.sdpa:
            out = F.scaled_dot_product_attention(q, k, v)
        else:
            out = ((q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5).softmax(dim=-1) @ v
        return self.proj(out.transpose(1, 2).flatten(2))


class _Step(nn.Module):
    def __init__(self, dim: int, num_heads: int, last: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.attn = PlainAttention(dim, num_heads)
        self.fc = nn.Identity() if last else nn.Linear(dim, dim)


class _Mlp(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _Block(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.steps = nn.ModuleDict(
            {"over_time": _Step(dim, num_heads, last=False), "over_space": _Step(dim, num_heads, last=True)}
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = _Mlp(dim)

    def forward(self, x: Tensor, frames: int) -> Tensor:  # [B, 1 + H*W*T, C], time fastest
        time, space = self.steps.values()
        cls, x = x[:, :1], x[:, 1:]
        batch = x.shape[0]
        places = rearrange(x, "b (s t) c -> (b s) t c", t=frames)
        x = x + time.fc(rearrange(time.attn(time.norm(places)), "(b s) t c -> b (s t) c", b=batch))
        in_frames = rearrange(x, "b (s t) c -> (b t) s c", t=frames)
        in_frames = torch.cat([repeat(cls, "b p c -> (b t) p c", t=frames), in_frames], dim=1)
        out = space.attn(space.norm(in_frames)).unflatten(0, (batch, frames))  # [B, T, 1 + H*W, C]
        tokens = rearrange(out[:, :, 1:], "b t s c -> b (s t) c")
        x = torch.cat([cls, x], dim=1) + torch.cat([out[:, :, 0].mean(dim=1, keepdim=True), tokens], dim=1)
        return x + self.mlp(self.norm(x))


class _PatchEmbed(nn.Module):
    def __init__(self, channels: int, dim: int, patch_size: int) -> None:
        super().__init__()
        patch = (1, patch_size, patch_size)
        self.proj = nn.Conv3d(channels, dim, patch, patch)


class PlainTimeSformer(nn.Module):
    """Clips (B, C, T, H, W) of `num_frames` squares of `image_size` to logits; options as in `vtfast.models`."""

    def __init__(
        self,
        num_frames: int,
        image_size: int,
        num_classes: int = 400,
        in_channels: int = 3,
        patch_size: int = 16,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
    ) -> None:
        super().__init__()
        self.patch_embed = _PatchEmbed(in_channels, embed_dim, patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (image_size // patch_size) ** 2, embed_dim))
        self.time_embed = nn.Parameter(torch.zeros(1, num_frames, embed_dim))
        self.blocks = nn.ModuleList(_Block(embed_dim, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.head = nn.Linear(embed_dim, num_classes)

    def forward(self, clip: Tensor) -> Tensor:
        frames = clip.shape[2]
        x = rearrange(self.patch_embed.proj(clip), "b c t h w -> b (h w) t c") + self.pos_embed[:, 1:, None]
        x = (x + self.time_embed[:, None]).flatten(1, 2)
        x = torch.cat([(self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x, frames)
        return self.head(self.norm(x)[:, 0])
