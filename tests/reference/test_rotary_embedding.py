"""The reference's rotary embedding against complex numbers, and against timesformer-pytorch with its own tables."""

import pytest
import torch
from torch import Tensor

from vtfast import reference

Triple = tuple[int, int, int]
HEADS, HEAD_DIM = 2, 8


def regular_tables(size: Triple, rotated: int) -> tuple[Tensor, Tensor, Tensor]:
    """Angles [*size, rotated / 2], and the cos and sin [*size, rotated] that turn each pair of channels by them."""
    angles = torch.randn(*size, rotated // 2, dtype=torch.float64)
    return angles, angles.cos().repeat_interleave(2, dim=-1), angles.sin().repeat_interleave(2, dim=-1)


def packed(num_prefix: int, grid: Triple, dtype: torch.dtype = torch.float64) -> Tensor:
    tokens = num_prefix + grid[0] * grid[1] * grid[2]
    return torch.randn(2, tokens, 3 * HEADS * HEAD_DIM, dtype=torch.float64).to(dtype)


def rotate(qkv: Tensor, grid: Triple, cos: Tensor, sin: Tensor, num_prefix: int = 0) -> Tensor:
    return reference.rotary_embedding(qkv, grid, cos, sin, num_heads=HEADS, num_prefix=num_prefix)


def multiply_by_complex_numbers(qkv: Tensor, grid: Triple, angles: Tensor, num_prefix: int) -> Tensor:
    """Channels 2i and 2i + 1 of a token's head are a complex number, which is turned by the token's angle i."""
    out, pairs = qkv.clone().view(qkv.shape[0], -1, 3, HEADS, HEAD_DIM), angles.shape[-1]
    turns = torch.polar(torch.ones_like(angles), angles).expand(*grid, pairs).reshape(-1, pairs)
    for token, turn in enumerate(turns, start=num_prefix):
        qk = torch.view_as_complex(out[:, token, :2].unflatten(-1, (-1, 2)))  # [B, 2, heads, D / 2]
        qk[..., :pairs] *= turn
    return out.view_as(qkv)


@pytest.mark.parametrize("num_prefix", [0, 1, 2])
@pytest.mark.parametrize("rotated", [2, 6, HEAD_DIM])
@pytest.mark.parametrize("size", [(2, 3, 2), (2, 1, 1), (1, 3, 2), (1, 1, 2), (1, 1, 1)], ids=str)
def test_agrees_with_complex_numbers(size: Triple, rotated: int, num_prefix: int) -> None:
    """Prefix, v and the channels behind the rotated ones stay as they are; a table broadcasts over the grid."""
    grid = (2, 3, 2)
    qkv = packed(num_prefix, grid)
    angles, cos, sin = regular_tables(size, rotated)
    expected = multiply_by_complex_numbers(qkv, grid, angles, num_prefix)
    torch.testing.assert_close(rotate(qkv, grid, cos, sin, num_prefix), expected)


def test_a_rotation_keeps_norms_and_what_is_not_rotated_to_the_bit() -> None:
    grid = (2, 3, 2)
    qkv = packed(1, grid)
    _, cos, sin = regular_tables(grid, 6)
    before, after = (x.view(2, -1, 3, HEADS, HEAD_DIM) for x in (qkv, rotate(qkv, grid, cos, sin, num_prefix=1)))
    torch.testing.assert_close(after.norm(dim=-1), before.norm(dim=-1))
    assert torch.equal(after[:, :1], before[:, :1])
    assert torch.equal(after[:, :, 2], before[:, :, 2])
    assert torch.equal(after[..., 6:], before[..., 6:])
    assert (after[:, 1:, :2, :, :6] != before[:, 1:, :2, :, :6]).all()


def test_scores_depend_on_the_difference_of_positions_alone() -> None:
    """What the embedding is for: with angles proportional to time, moving both tokens changes no product q k."""
    grid, rates = (6, 1, 1), torch.randn(HEAD_DIM // 2, dtype=torch.float64)
    angles = (torch.arange(6)[:, None] * rates).repeat_interleave(2, dim=-1).view(6, 1, 1, HEAD_DIM)
    qkv = torch.randn(1, 1, 3 * HEADS * HEAD_DIM, dtype=torch.float64).expand(1, 6, -1)
    q, k, _ = rotate(qkv, grid, angles.cos(), angles.sin()).unflatten(-1, (3, HEADS, HEAD_DIM)).unbind(2)
    scores = torch.einsum("bihd,bjhd->bhij", q, k)
    torch.testing.assert_close(scores[..., 1:, 1:], scores[..., :-1, :-1])


def test_five_dimensional_tokens() -> None:
    grid = (2, 3, 2)
    qkv = packed(0, grid)
    _, cos, sin = regular_tables((1, 3, 2), HEAD_DIM)
    out = rotate(qkv.unflatten(1, grid), grid, cos, sin)
    assert out.shape == (2, *grid, 3 * HEADS * HEAD_DIM)
    assert torch.equal(out.flatten(1, 3), rotate(qkv, grid, cos, sin))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precision_is_rounded_once(dtype: torch.dtype) -> None:
    grid = (2, 3, 2)
    qkv = packed(1, grid, dtype)
    _, cos, sin = regular_tables(grid, HEAD_DIM)
    out = rotate(qkv, grid, cos.float(), sin.float(), num_prefix=1)
    expected = rotate(qkv.double(), grid, cos.float(), sin.float(), num_prefix=1)
    assert out.dtype == dtype
    # Half an ulp of the result, and what float32 loses on the way.
    torch.testing.assert_close(out.double(), expected, rtol=0.51 * torch.finfo(dtype).eps, atol=1e-6)


def test_gradients_are_those_of_the_formula() -> None:
    _, cos, sin = regular_tables((2, 1, 1), 6)
    leaves = tuple(tensor.requires_grad_() for tensor in (packed(1, (2, 1, 1)), cos, sin))
    assert torch.autograd.gradcheck(lambda *tensors: rotate(tensors[0], (2, 1, 1), *tensors[1:], 1), leaves)


@pytest.mark.parametrize("kind", ["frames", "image"])
def test_agrees_with_timesformer_pytorch(kind: str) -> None:
    """Both tables of the package. Those of frames do not rotate: a pair's channels turn by different angles."""
    rotary = pytest.importorskip("timesformer_pytorch.rotary")
    grid = (5, 3, 4)
    frames, height, width = grid
    qkv = packed(1, grid)
    # The package sees (batch, heads), then the sequences of its attention: places for time, frames for space.
    q, k, v = qkv.unflatten(-1, (3, HEADS, HEAD_DIM)).permute(2, 0, 3, 1, 4)[..., 1:, :].unflatten(-2, (frames, -1))
    if kind == "frames":
        sin, cos = (table.double() for table in rotary.RotaryEmbedding(HEAD_DIM)(frames, "cpu"))
        q, k = (x.transpose(-2, -3) for x in (q, k))
        q, k = (x.transpose(-2, -3) for x in rotary.apply_rot_emb(q, k, (sin, cos)))
        size: Triple = (frames, 1, 1)
    else:
        sin, cos = (table.double() for table in rotary.AxialRotaryEmbedding(HEAD_DIM)(height, width, "cpu"))
        q, k = rotary.apply_rot_emb(q, k, (sin, cos))
        size = (1, height, width)
    expected = torch.stack([q, k, v]).flatten(3, 4).permute(1, 3, 0, 2, 4).flatten(2)  # [B, T*H*W, 3*C]
    out = rotate(qkv, grid, cos.view(*size, HEAD_DIM), sin.view(*size, HEAD_DIM), num_prefix=1)
    torch.testing.assert_close(out[:, 1:], expected)
    assert torch.equal(out[:, :1], qkv[:, :1])
    q_norms = [x.unflatten(-1, (3, HEADS, HEAD_DIM))[:, 1:, 0].norm(dim=-1) for x in (out, qkv)]
    assert torch.allclose(*q_norms) == (kind == "image")
