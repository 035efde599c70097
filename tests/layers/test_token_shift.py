"""Token shift against the tokens of the frames before and after, one frame at a time."""

import pytest
import torch
from torch import Tensor

from vtfast.layers import token_shift

GRIDS = [((4, 2, 3), 9), ((4, 2, 3), 11), ((1, 2, 2), 6), ((3, 1, 1), 5), ((2, 1, 2), 2)]


def by_frames(x: Tensor, grid: tuple[int, int, int], num_prefix: int) -> Tensor:
    frames = list(x[:, num_prefix:].unflatten(1, (grid[0], -1)).unbind(1))
    zeros, third = torch.zeros_like(frames[0]), x.shape[-1] // 3
    shifted = []
    for before, own, after in zip([zeros, *frames[:-1]], frames, [*frames[1:], zeros], strict=True):
        parts = (
            after[..., :third],
            own[..., third : 2 * third],
            before[..., 2 * third : 3 * third],
            own[..., 3 * third :],
        )
        shifted.append(torch.cat(parts, dim=-1))
    return torch.cat([x[:, :num_prefix], *shifted], dim=1)


@pytest.mark.parametrize("num_prefix", [0, 1, 2])
@pytest.mark.parametrize(("grid", "channels"), GRIDS, ids=str)
def test_results_and_gradients(grid: tuple[int, int, int], channels: int, num_prefix: int) -> None:
    tokens = num_prefix + grid[0] * grid[1] * grid[2]
    x = torch.randn(2, tokens, channels, dtype=torch.float64, requires_grad=True)
    out, expected = token_shift(x, grid, num_prefix=num_prefix), by_frames(x, grid, num_prefix)
    assert torch.equal(out, expected)
    assert out.is_contiguous()
    weights = torch.randn_like(x)
    own, wanted = (torch.autograd.grad((y * weights).sum(), x)[0] for y in (out, expected))
    assert torch.equal(own, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_keeps_the_dtype_and_takes_strided_tokens(dtype: torch.dtype) -> None:
    x = torch.randn(9, 13, 3).to(dtype).permute(2, 1, 0)
    out = token_shift(x, (3, 2, 2))
    assert out.dtype == dtype
    assert torch.equal(out, by_frames(x, (3, 2, 2), 1))


def test_empty_batch_and_expanded_gradient() -> None:
    assert token_shift(torch.empty(0, 5, 6), (2, 2, 1)).shape == (0, 5, 6)
    x = torch.randn(1, 5, 6, requires_grad=True)
    token_shift(x, (2, 2, 1)).sum().backward()
    assert torch.equal(x.grad[0, 0], torch.ones(6))
    assert x.grad.sum() == 6 + 2 * (4 + 2 + 2)


def test_derivatives_of_any_order_and_function_transforms() -> None:
    x = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: token_shift(x, (2, 2, 1)).square(), x)
    batched = torch.vmap(lambda x: token_shift(x, (2, 2, 1)))(torch.stack([x, 2 * x]))
    torch.testing.assert_close(batched[1], token_shift(2 * x, (2, 2, 1)))
    gradient = torch.func.grad(lambda x: token_shift(x, (2, 2, 1)).square().sum())(x.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(token_shift(x, (2, 2, 1)).square().sum(), x)[0])


def test_compiles_to_one_graph() -> None:
    compiled = torch.compile(token_shift, fullgraph=True, dynamic=True, backend="aot_eager")
    for frames in (2, 4):
        x = torch.randn(2, 1 + 2 * frames, 7, requires_grad=True)
        out = compiled(x, (frames, 2, 1))
        assert torch.equal(out, by_frames(x, (frames, 2, 1), 1))
        weights = torch.randn_like(x)
        own, wanted = (torch.autograd.grad((y * weights).sum(), x)[0] for y in (out, by_frames(x, (frames, 2, 1), 1)))
        assert torch.equal(own, wanted)
