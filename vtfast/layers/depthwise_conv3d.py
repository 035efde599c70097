"""Depthwise 3D convolution as a module, for volumes and for tokens."""

from collections.abc import Sequence

from torch import Tensor, nn

from vtfast import ops
from vtfast.ops._arguments import Triple, triple


class DepthwiseConv3d(nn.Module):
    """A 3D convolution of every channel with a kernel of its own, in place of `nn.Conv3d(C, C, k, groups=C)`.

    Parameters have the names, shapes and initial values of that `nn.Conv3d`, so that its state dict fits.

    Args:
        channels: channels of input and output.
        kernel_size: size (T, H, W) of the kernel.
        stride: distance (T, H, W) between windows.
        padding: zeros (T, H, W) at both ends of each axis; half the kernel if None.
        bias: whether every channel has a bias.

    Shape:
        (B, C, T, H, W) to (B, C, T', H', W'). The result is in `torch.channels_last_3d`, and an input in that layout is
        read where it lies; one in any other is copied to it first.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        kernel = triple(kernel_size, "kernel_size", 1)
        self.stride: Triple = triple(stride, "stride", 1)
        half = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.padding: Triple = half if padding is None else triple(padding, "padding", 0)
        conv = nn.Conv3d(channels, channels, kernel, groups=channels, bias=bias)
        self.weight, self.bias = conv.weight, conv.bias

    @classmethod
    def of(cls, conv: nn.Conv3d) -> "DepthwiseConv3d":
        """A module that shares the parameters of a depthwise `nn.Conv3d`.

        Raises:
            TypeError: `conv` is no `nn.Conv3d`.
            ValueError: it is not depthwise, is dilated, pads with anything but zeros, or by a name it does not know.
        """
        if not isinstance(conv, nn.Conv3d):
            raise TypeError(f"conv must be an nn.Conv3d, got {type(conv).__name__}")
        sizes = (conv.in_channels, conv.out_channels, conv.groups)
        if len(set(sizes)) != 1:
            raise ValueError(f"conv must have as many groups as input and output channels, got {sizes}")
        if conv.padding_mode != "zeros" or tuple(conv.dilation) != (1, 1, 1):
            raise ValueError(
                f"conv must pad with zeros and have dilation 1, got {conv.padding_mode!r} and {conv.dilation}"
            )
        module = cls(1, conv.kernel_size, conv.stride, _numbers(conv), bias=False)
        module.weight, module.bias = conv.weight, conv.bias
        return module.train(conv.training)

    def forward(
        self,
        x: Tensor,  # [B, C, T, H, W]
    ) -> Tensor:  # [B, C, T', H', W']
        if not isinstance(x, Tensor) or x.dim() != 5:
            got = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"x must be a tensor (B, C, T, H, W), got {got}")
        return self.tokens(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)

    def tokens(
        self,
        x: Tensor,  # [B, T, H, W, C]
        residual: bool = False,
    ) -> Tensor:  # [B, T', H', W', C]
        """The same on channels-last tokens; with `residual`, `x` is added to the result."""
        return ops.depthwise_conv3d(
            x, self.weight, self.bias, stride=self.stride, padding=self.padding, residual=residual
        )

    def extra_repr(self) -> str:
        channels, _, *kernel = self.weight.shape
        return (
            f"{channels}, kernel_size={tuple(kernel)}, stride={self.stride}, padding={self.padding}, "
            f"bias={self.bias is not None}"
        )


def _numbers(conv: nn.Conv3d) -> Triple:
    """The padding of a convolution in tokens, also where it is given by name."""
    if conv.padding == "same" and any(k % 2 == 0 for k in conv.kernel_size):
        raise ValueError(f'padding="same" of an even kernel is not symmetric, got kernel_size {conv.kernel_size}')
    if isinstance(conv.padding, str):
        kt, kh, kw = conv.kernel_size if conv.padding == "same" else (1, 1, 1)
        return kt // 2, kh // 2, kw // 2
    t, h, w = conv.padding
    return t, h, w
