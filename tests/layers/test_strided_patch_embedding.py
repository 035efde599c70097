import pytest
import torch
import torch.nn.functional as F

from vtfast.layers import StridedPatchEmbed3d


@pytest.mark.parametrize("kernel", [(3, 4, 4), (1, 2, 2)], ids=str)
def test_is_a_convolution_and_a_norm(kernel: tuple[int, int, int]) -> None:
    """With padding in time only; what the stride does not divide is left out."""
    layer = StridedPatchEmbed3d(3, 8, kernel, (2, *kernel[1:])).double()
    x = torch.randn(2, 3, 5, 9, 11, dtype=torch.float64)
    volume = F.conv3d(x, layer.proj.weight, layer.proj.bias, (2, *kernel[1:]), (kernel[0] // 2, 0, 0))
    out = layer(x)
    torch.testing.assert_close(out, layer.norm(volume.permute(0, 2, 3, 4, 1)))
    assert out.shape == (2, 3, 9 // kernel[1], 11 // kernel[2], 8)
    assert out.is_contiguous()


def test_rejects_what_is_smaller_than_a_patch() -> None:
    with pytest.raises(ValueError, match=r"x must hold a patch of \(3, 4, 4\), got \(T, H, W\) = \(2, 3, 8\)"):
        StridedPatchEmbed3d(3, 8, (3, 4, 4), (2, 4, 4))(torch.zeros(1, 3, 2, 3, 8))
