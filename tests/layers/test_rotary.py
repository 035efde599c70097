"""Rotary tables against their formulas, one element at a time."""

import math

import pytest
import torch

from vtfast.layers import axial_rotary, frame_rotary


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("frames", "head_dim"), [(1, 4), (7, 6), (96, 64)])
def test_frame_tables(frames: int, head_dim: int, dtype: torch.dtype) -> None:
    cos, sin = frame_rotary(frames, head_dim, dtype=dtype)
    assert cos.shape == sin.shape == (frames, 1, 1, head_dim)
    assert cos.dtype == sin.dtype == dtype
    angles = [[t * 10000 ** (-2 * (i % (head_dim // 2)) / head_dim) for i in range(head_dim)] for t in range(frames)]
    expected = torch.tensor(angles, dtype=torch.float64)
    torch.testing.assert_close(cos[:, 0, 0].double(), expected.cos(), rtol=0, atol=1e-5)
    torch.testing.assert_close(sin[:, 0, 0].double(), expected.sin(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("height", "width", "head_dim"), [(1, 1, 4), (3, 5, 10), (14, 9, 64)])
def test_axial_tables(height: int, width: int, head_dim: int, dtype: torch.dtype) -> None:
    cos, sin = axial_rotary(height, width, head_dim, dtype=dtype)
    steps = head_dim // 4
    assert cos.shape == sin.shape == (1, height, width, 4 * steps)
    assert cos.dtype == sin.dtype == dtype

    def angle(index: int, size: int, channel: int) -> float:
        place = -1 + 2 * index / (size - 1) if size > 1 else -1.0
        return place * math.pi * 5 ** (channel // 2 / (steps - 1) if steps > 1 else 0)

    angles = [
        [
            [angle(h, height, i) for i in range(2 * steps)] + [angle(w, width, i) for i in range(2 * steps)]
            for w in range(width)
        ]
        for h in range(height)
    ]
    expected = torch.tensor(angles, dtype=torch.float64)
    torch.testing.assert_close(cos[0].double(), expected.cos(), rtol=0, atol=1e-5)
    torch.testing.assert_close(sin[0].double(), expected.sin(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("head_dim", [2, 7])
def test_rejects_head_dim(head_dim: int) -> None:
    with pytest.raises(ValueError, match=f"head_dim must be even and at least 4 for rotary embedding, got {head_dim}"):
        frame_rotary(3, head_dim)
    with pytest.raises(ValueError, match=f"head_dim must be even and at least 4 for rotary embedding, got {head_dim}"):
        axial_rotary(3, 3, head_dim)
