"""The reference's depthwise convolution against a sum over taps that shares nothing with it, and against nn.Conv3d."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtfast import reference
from vtfast.reference import convolved_grid

Triple = tuple[int, int, int]


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def sum_over_taps(
    x: Tensor,  # [B, T, H, W, C]
    weight: Tensor,  # [C, 1, kt, kh, kw]
    stride: Triple,
    padding: Triple,
) -> Tensor:  # [B, T', H', W', C]
    """What each tap of the kernel sees of the padded tokens, weighted."""
    kernel = tuple(weight.shape[2:])
    padded = F.pad(x, (0, 0, *(p for axis in (2, 1, 0) for p in (padding[axis],) * 2)))
    total = torch.zeros((), dtype=x.dtype)
    for tap in itertools.product(*map(range, kernel)):
        seen = padded
        for axis in range(3):
            last = padded.shape[axis + 1] - kernel[axis] + tap[axis]
            seen = seen.index_select(axis + 1, torch.arange(tap[axis], last + 1, stride[axis]))
        total = total + seen * weight[:, 0, tap[0], tap[1], tap[2]]
    return total


# Grid, kernel, stride, padding: those of published models, even kernels, strides that leave tokens out, windows larger
# than the grid, no padding, and more than the kernel.
CONVOLUTIONS: list[tuple[Triple, Triple, Triple, Triple]] = [
    ((3, 4, 5), (1, 1, 1), (1, 1, 1), (0, 0, 0)),
    ((3, 4, 5), (3, 3, 3), (1, 1, 1), (1, 1, 1)),
    ((3, 4, 5), (5, 5, 5), (1, 1, 1), (2, 2, 2)),
    ((5, 2, 3), (3, 1, 1), (1, 1, 1), (1, 0, 0)),
    ((2, 5, 4), (1, 3, 3), (1, 2, 2), (0, 1, 1)),
    ((4, 2, 6), (5, 1, 3), (2, 1, 3), (2, 0, 1)),
    ((4, 3, 5), (2, 2, 2), (2, 2, 2), (0, 0, 0)),
    ((3, 4, 3), (4, 2, 1), (1, 2, 1), (2, 1, 0)),
    ((1, 1, 2), (3, 5, 7), (1, 1, 1), (1, 2, 3)),
    ((2, 3, 2), (3, 3, 3), (4, 5, 6), (1, 1, 1)),
    ((3, 4, 5), (3, 3, 3), (1, 1, 1), (0, 0, 0)),
    ((2, 3, 2), (2, 3, 3), (1, 2, 1), (4, 3, 5)),
]


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "bare"])
@pytest.mark.parametrize(("grid", "kernel", "stride", "padding"), CONVOLUTIONS, ids=str)
def test_result_and_gradients(grid: Triple, kernel: Triple, stride: Triple, padding: Triple, bias: bool) -> None:
    leaves = [normal(2, *grid, 3), normal(3, 1, *kernel), *[normal(3)] * bias]
    expected = sum_over_taps(leaves[0], leaves[1], stride, padding) + (leaves[2] if bias else 0)
    out = reference.depthwise_conv3d(*leaves, stride=stride, padding=padding)
    assert tuple(out.shape[1:4]) == convolved_grid(grid, kernel, stride, padding)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    torch.testing.assert_close(torch.autograd.grad(out, leaves, grad), torch.autograd.grad(expected, leaves, grad))

    conv = nn.Conv3d(3, 3, kernel, stride, padding, groups=3, bias=bias, dtype=torch.float64)
    conv.load_state_dict(dict(zip(("weight", "bias"), leaves[1:], strict=False)))
    torch.testing.assert_close(conv(leaves[0].movedim(-1, 1)).movedim(1, -1), out)


@pytest.mark.parametrize("kernel", [(1, 1, 1), (3, 3, 3), (5, 1, 3)], ids=str)
def test_half_the_kernel_is_the_padding_if_none_is_given_and_the_residual_the_input(kernel: Triple) -> None:
    x, weight, bias = normal(2, 3, 4, 5, 3), normal(3, 1, *kernel), normal(3)
    t, h, w = (size // 2 for size in kernel)
    expected = x + bias + sum_over_taps(x, weight, (1, 1, 1), (t, h, w))
    torch.testing.assert_close(reference.depthwise_conv3d(x, weight, bias, residual=True), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precision_with_gradients(dtype: torch.dtype) -> None:
    """Among them the gradient of a bfloat16 weight, which torch leaves unwritten for some layouts of the tokens."""
    values = [normal(2, 2, 4, 5, 6), normal(6, 1, 3, 3, 3), normal(6)]
    results = []
    for kind in (dtype, torch.float64):
        leaves = [value.detach().to(dtype).to(kind).requires_grad_() for value in values]
        out = reference.depthwise_conv3d(*leaves, residual=True)
        results.append([out, *torch.autograd.grad(out.sum(), leaves)])
    assert all(tensor.dtype == dtype for tensor in results[0])
    eps = torch.finfo(dtype).eps
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual.double(), expected, rtol=8 * eps, atol=8 * eps * expected.abs().max().item())
