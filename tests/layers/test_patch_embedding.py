import pytest
import torch
import torch.nn.functional as F
from oracles import randomise

from vtfast.layers import PatchEmbed3d


def padded_convolution(layer: PatchEmbed3d, clip: torch.Tensor) -> torch.Tensor:
    missing = [-size % patch for size, patch in zip(clip.shape[2:], layer.patch_size, strict=True)]
    clip = F.pad(clip, (0, missing[2], 0, missing[1], 0, missing[0]))
    return layer.norm(layer.proj(clip).permute(0, 2, 3, 4, 1))


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("patch_size", [(2, 4, 4), (1, 3, 5)])
@pytest.mark.parametrize("size", [(1, 1, 1), (4, 8, 8), (5, 9, 11), (3, 16, 3)])
def test_is_the_padded_convolution(size: tuple[int, ...], patch_size: tuple[int, ...], norm: bool) -> None:
    layer = randomise(PatchEmbed3d(3, 10, patch_size, norm), seed=0).double()
    clip = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    tokens, expected = layer(clip), padded_convolution(layer, clip)
    torch.testing.assert_close(tokens, expected)
    assert tokens.is_contiguous()
    weights = torch.randn_like(tokens)
    inputs = [clip, *layer.parameters()]
    grads = torch.autograd.grad((tokens * weights).sum(), inputs)
    torch.testing.assert_close(grads, torch.autograd.grad((expected * weights).sum(), inputs))


def test_takes_permuted_and_expanded_clips() -> None:
    layer = PatchEmbed3d(3, 10)
    frames = torch.randn(2, 4, 8, 8, 3)
    clip = frames.permute(0, 4, 1, 2, 3)
    torch.testing.assert_close(layer(clip), layer(clip.contiguous()))
    still = frames[:, :1].expand(-1, 4, -1, -1, -1).permute(0, 4, 1, 2, 3)
    torch.testing.assert_close(layer(still), layer(still.contiguous()))


def test_empty_batch() -> None:
    assert PatchEmbed3d(3, 10)(torch.empty(0, 3, 4, 8, 9)).shape == (0, 2, 2, 3, 10)


@pytest.mark.parametrize(
    ("clip", "error", "message"),
    [
        ([1.0], TypeError, "clip must be a tensor, got list"),
        (torch.zeros(1, 3, 4, 8, 8, dtype=torch.uint8), TypeError, "clip must be floating point .*, got torch.uint8"),
        (torch.zeros(3, 4, 8, 8), ValueError, r"clip must be \(B, C, T, H, W\) with C = 3, got shape \(3, 4, 8, 8\)"),
        (torch.zeros(1, 4, 3, 8, 8), ValueError, r"with C = 3, got shape \(1, 4, 3, 8, 8\)"),
        (torch.zeros(1, 3, 0, 8, 8), ValueError, r"at least one frame and one pixel, got \(T, H, W\) = \(0, 8, 8\)"),
    ],
    ids=["list", "uint8", "no-batch", "channels", "no-frames"],
)
def test_rejects(clip: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PatchEmbed3d(3, 10)(clip)


@pytest.mark.parametrize("patch_size", [0, (2, 4), (2, -4, 4)])
def test_rejects_patch_size(patch_size: object) -> None:
    with pytest.raises((TypeError, ValueError), match="patch_size must be"):
        PatchEmbed3d(3, 10, patch_size)
