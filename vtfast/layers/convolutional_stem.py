"""The first layer of the light UniFormer: two convolutions in place of a patch embedding."""

import torch
from torch import Tensor, nn

from vtfast.layers.batch_norm import fold_into_previous


class ConvolutionalStem(nn.Module):
    """Two convolutions 3 x 3 x 3 with batch normalisation, a GELU between them; a token is 2 frames of 4 x 4 pixels.

    The first one halves height and width, the second one also time; sizes are rounded up.

    Args:
        in_channels: channels of the clip.
        embed_dim: channels of a token; half of them between the convolutions.

    Shape:
        (B, C, T, H, W) to (B, ceil(T/2), ceil(H/4), ceil(W/4), embed_dim).
    """

    def __init__(self, in_channels: int, embed_dim: int) -> None:
        super().__init__()
        between = embed_dim // 2
        self.proj = nn.Sequential(
            nn.Conv3d(in_channels, between, 3, (1, 2, 2), 1),
            nn.BatchNorm3d(between),
            nn.GELU(),
            nn.Conv3d(between, embed_dim, 3, 2, 1),
            nn.BatchNorm3d(embed_dim),
        )

    def forward(
        self,
        clip: Tensor,  # [B, C, T, H, W]
    ) -> Tensor:  # [B, T', H', W', embed_dim]
        volume = self.proj(clip.contiguous(memory_format=torch.channels_last_3d))
        return volume.permute(0, 2, 3, 4, 1).contiguous()

    def fold_norms(self) -> None:
        """Makes both normalisations part of the convolutions before them, for evaluation."""
        for conv, norm in ((0, 1), (3, 4)):
            self.proj[norm] = fold_into_previous(self.proj[conv], self.proj[norm])  # type: ignore[arg-type]
