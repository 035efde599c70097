import pytest
import torch
import torch.nn.functional as F
from oracles import randomise

from vtfast.layers import OverlappingPatchEmbed3d


@pytest.mark.parametrize("size", [(1, 1, 1), (4, 8, 8), (5, 9, 11)], ids=str)
@pytest.mark.parametrize(("kernel", "stride"), [((3, 7, 7), (2, 4, 4)), ((1, 7, 7), (1, 4, 4)), (2, 1)], ids=str)
def test_is_the_convolution_padded_by_half_its_kernel(
    kernel: int | tuple[int, ...], stride: int | tuple[int, ...], size: tuple[int, ...]
) -> None:
    layer = randomise(OverlappingPatchEmbed3d(3, 10, kernel, stride), seed=0).double()
    clip = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    tokens = layer(clip)
    padding = [k // 2 for k in layer.proj.kernel_size]
    expected = F.conv3d(clip, layer.proj.weight, layer.proj.bias, layer.proj.stride, padding).permute(0, 2, 3, 4, 1)
    torch.testing.assert_close(tokens, expected)
    assert tokens.is_contiguous()
    cotangent, inputs = torch.randn_like(tokens), [clip, *layer.parameters()]
    grads = torch.autograd.grad((tokens * cotangent).sum(), inputs)
    torch.testing.assert_close(grads, torch.autograd.grad((expected * cotangent).sum(), inputs))


def test_takes_permuted_and_expanded_clips() -> None:
    layer = OverlappingPatchEmbed3d(3, 10)
    frames = torch.randn(2, 4, 8, 8, 3)
    clip = frames.permute(0, 4, 1, 2, 3)
    torch.testing.assert_close(layer(clip), layer(clip.contiguous()))
    still = frames[:, :1].expand(-1, 4, -1, -1, -1).permute(0, 4, 1, 2, 3)
    torch.testing.assert_close(layer(still), layer(still.contiguous()))


def test_empty_batch() -> None:
    assert OverlappingPatchEmbed3d(3, 10)(torch.empty(0, 3, 4, 8, 9)).shape == (0, 2, 2, 3, 10)


def test_rejects() -> None:
    with pytest.raises(ValueError, match=r"clip must be \(B, C, T, H, W\) with C = 3, got shape \(1, 4, 3, 8, 8\)"):
        OverlappingPatchEmbed3d(3, 10)(torch.zeros(1, 4, 3, 8, 8))
    with pytest.raises(ValueError, match="stride must be"):
        OverlappingPatchEmbed3d(3, 10, stride=(2, 0, 4))


def test_padding_and_bias_are_options() -> None:
    layer = OverlappingPatchEmbed3d(3, 10, (3, 4, 4), (2, 4, 4), padding=(1, 0, 0), bias=False)
    assert layer.proj.bias is None
    clip = torch.randn(1, 3, 4, 8, 12)
    expected = F.conv3d(clip, layer.proj.weight, None, (2, 4, 4), (1, 0, 0)).permute(0, 2, 3, 4, 1)
    torch.testing.assert_close(layer(clip), expected)
