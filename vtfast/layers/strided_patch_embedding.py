"""The step to a stage of UniFormer: patches of the frames become tokens of fewer places and more channels."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtfast.ops._arguments import triple


class StridedPatchEmbed3d(nn.Module):
    """Projects patches that lie side by side in a frame, and may overlap in time, to tokens, and normalises them.

    Time is zero-padded by half the kernel. Rows and columns of a frame that the stride does not divide are left out at
    the end. The convolution runs in the layout of channels last, so that tokens of the stage before are read, and
    written, where they lie. On a CPU that was the fastest way measured, before a matrix product of rearranged patches.

    Args:
        in_channels: channels of the input.
        embed_dim: channels of a token.
        kernel: size of a patch (T, H, W), in tokens, or frames and pixels, of the input.
        stride: distance between patches (T, H, W), likewise.

    Shape:
        (B, C, T, H, W) to (B, T', H', W', embed_dim) with T' = (T + 2 * (kt // 2) - kt) // st + 1,
        H' = (H - kh) // sh + 1.

    Raises:
        ValueError: the input is smaller than one patch.
    """

    def __init__(
        self, in_channels: int, embed_dim: int, kernel: int | Sequence[int], stride: int | Sequence[int]
    ) -> None:
        super().__init__()
        kernel, stride = triple(kernel, "kernel", 1), triple(stride, "stride", 1)
        self.proj = nn.Conv3d(in_channels, embed_dim, kernel, stride, (kernel[0] // 2, 0, 0))
        self.norm = nn.LayerNorm(embed_dim)

    def forward(
        self,
        x: Tensor,  # [B, C, T, H, W]
    ) -> Tensor:  # [B, T', H', W', embed_dim]
        if any(size < patch for size, patch in zip(x.shape[3:], self.proj.kernel_size[1:], strict=True)):
            raise ValueError(f"x must hold a patch of {self.proj.kernel_size}, got (T, H, W) = {tuple(x.shape[2:])}")
        if self.proj.kernel_size[0] == self.proj.stride[0] == 1:
            return self.norm(self._project_frames(x))
        x, weight = (tensor.contiguous(memory_format=torch.channels_last_3d) for tensor in (x, self.proj.weight))
        volume = F.conv3d(x, weight, self.proj.bias, self.proj.stride, self.proj.padding)
        return self.norm(volume.permute(0, 2, 3, 4, 1).contiguous())

    def _project_frames(
        self,
        x: Tensor,  # [B, C, T, H, W]
    ) -> Tensor:  # [B, T, H', W', embed_dim]
        """With the frames as a batch: for a single clip of few frames PyTorch has only a slow convolution of volumes.

        Forward, at 8 frames of 224 x 224, that takes up to 2.9 times as long.
        """
        weight = self.proj.weight.squeeze(2)
        frames, weight = (
            tensor.contiguous(memory_format=torch.channels_last) for tensor in (x.transpose(1, 2).flatten(0, 1), weight)
        )
        maps = F.conv2d(frames, weight, self.proj.bias, self.proj.stride[1:])  # [B*T, embed_dim, H', W']
        return maps.permute(0, 2, 3, 1).contiguous().unflatten(0, (x.shape[0], x.shape[2]))
