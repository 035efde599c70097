"""Video Swin's window attention: the rule for small grids, and torchvision as an oracle for windows that fit."""

import pytest
import torch
from oracles import torchvision_video
from torch import Tensor

from vtfast import ops

Triple = tuple[int, int, int]


def table_for(window: Triple, num_heads: int) -> Tensor:
    rows = (2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1)
    return torch.randn(rows, num_heads, dtype=torch.float64)


def tokens(*size: int) -> Tensor:
    return torch.randn(2, *size, 24, dtype=torch.float64)


@pytest.mark.parametrize("shift", [(0, 0, 0), (2, 1, 1)], ids=["plain", "shifted"])
@pytest.mark.parametrize("size", [(4, 6, 6), (8, 3, 9), (5, 7, 8), (2, 7, 5), (3, 2, 7), (4, 3, 3), (1, 1, 1)], ids=str)
def test_agrees_with_torchvision(size: Triple, shift: Triple) -> None:
    """With the identity as output projection, the upstream function is this operation, and its gradients too."""
    window, num_heads, dim = (4, 3, 3), 2, 8
    swin = torchvision_video().swin_transformer
    upstream = swin.ShiftedWindowAttention3d(dim, list(window), list(shift), num_heads).double()
    x = torch.randn(2, *size, dim, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3 * dim, dim, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3 * dim, dtype=torch.float64, requires_grad=True)
    table = table_for(window, num_heads).requires_grad_()

    clamped, clamped_shift = swin._get_window_and_shift_size(list(shift), list(size), list(window))
    count = clamped[0] * clamped[1] * clamped[2]
    index = upstream.relative_position_index.view(36, 36)[:count, :count]
    expected = swin.shifted_window_attention_3d(
        x,
        weight,
        torch.eye(dim, dtype=torch.float64),
        table[index].permute(2, 0, 1)[None],
        clamped,
        num_heads,
        clamped_shift,
        qkv_bias=bias,
    )
    qkv = torch.nn.functional.linear(x, weight, bias)
    out = ops.window_attention(qkv, num_heads=num_heads, window=window, shift=shift, bias_table=table, pad_qkv=bias)
    torch.testing.assert_close(out, expected)
    weights = torch.randn_like(out)
    leaves = [x, weight, bias, table]
    grads = torch.autograd.grad((out * weights).sum(), leaves)
    torch.testing.assert_close(grads, torch.autograd.grad((expected * weights).sum(), leaves))


def test_a_grid_that_fits_the_window_is_not_shifted_and_not_padded() -> None:
    qkv, table = tokens(3, 8, 4), table_for((4, 3, 4), 2)
    out = ops.window_attention(qkv, num_heads=2, window=(4, 3, 4), shift=(2, 1, 2), bias_table=table)
    expected = ops.grid_attention(
        qkv, (3, 8, 4), num_heads=2, block=(3, 3, 4), shift=(0, 1, 0), bias_table=table, bias_window=(4, 3, 4),
        bias_order="window",
    )  # fmt: skip
    assert torch.equal(out, expected)


@pytest.mark.parametrize(("size", "agree"), [((2, 3, 4), True), ((4, 2, 4), False), ((4, 3, 3), False)], ids=str)
def test_corrected_bias_differs_where_height_or_width_shrinks(size: Triple, agree: bool) -> None:
    qkv, table = tokens(*size), table_for((4, 3, 4), 2)

    def run(shrunk_bias: str) -> Tensor:
        return ops.window_attention(qkv, num_heads=2, window=(4, 3, 4), bias_table=table, shrunk_bias=shrunk_bias)

    assert torch.allclose(run("upstream"), run("corrected")) == agree


def test_corrected_bias_is_that_of_the_true_offsets() -> None:
    """A shrunk window with a large table is that window with the middle of the table."""
    qkv, table = tokens(2, 2, 3), table_for((4, 3, 4), 2)
    middle = table.view(7, 5, 7, 2)[2:5, 1:4, 1:6].reshape(-1, 2)
    out = ops.window_attention(qkv, num_heads=2, window=(4, 3, 4), bias_table=table, shrunk_bias="corrected")
    expected = ops.window_attention(qkv, num_heads=2, window=(2, 2, 3), bias_table=middle)
    torch.testing.assert_close(out, expected)


def test_key_mask_and_scale_are_passed_on() -> None:
    qkv, key_mask = tokens(4, 4, 4), torch.rand(2, 4, 4, 4) > 0.3
    out = ops.window_attention(qkv, num_heads=2, window=2, shift=1, key_mask=key_mask, scale=0.1)
    expected = ops.grid_attention(
        qkv, (4, 4, 4), num_heads=2, block=2, shift=1, key_mask=key_mask.flatten(1), scale=0.1
    )
    assert torch.equal(out, expected)
