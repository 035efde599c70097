"""The reference's token pooling against a statement that shares nothing with it: one token and head at a time."""

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from vtfast import reference
from vtfast.reference import TokenPool, pooled_grid

Triple = tuple[int, int, int]
AXES = range(3)
HEADS, HEAD_DIM = 2, 3


def places(grid: Triple) -> Iterator[Triple]:
    yield from itertools.product(*(range(size) for size in grid))


class Loops:
    """Token pooling told window by window."""

    def __init__(self, grid: Triple, kernel: Triple, stride: Triple, mode: str, weight: Tensor | None) -> None:
        self.grid, self.kernel, self.stride, self.mode, self.weight = grid, kernel, stride, mode, weight

    def results(self) -> list[Triple]:
        """Every place from which a window lies within the grid and k // 2 of padding on either side of it."""
        found: list[list[int]] = [[], [], []]
        for axis in AXES:
            pad, place = self.kernel[axis] // 2, 0
            while place * self.stride[axis] + self.kernel[axis] <= self.grid[axis] + 2 * pad:
                found[axis].append(place)
                place += 1
        return list(itertools.product(*found))

    def taps(self, place: Triple) -> Iterator[tuple[Triple, Triple]]:
        """Those of a window that lie on the grid, as (tap, place on the grid)."""
        for tap in places(self.kernel):
            there = [place[a] * self.stride[a] + tap[a] - self.kernel[a] // 2 for a in AXES]
            if all(0 <= there[a] < self.grid[a] for a in AXES):
                yield tap, (there[0], there[1], there[2])

    def pool(self, tokens: dict[Triple, Tensor], place: Triple) -> Tensor:
        window = [(tap, tokens[there]) for tap, there in self.taps(place)]
        if self.mode == "max":
            return torch.stack([token for _, token in window]).amax(0)
        if self.mode == "avg":
            return sum(token for _, token in window) / torch.Size(self.kernel).numel()
        return sum(self.weight[:, 0, tap[0], tap[1], tap[2]] * token for tap, token in window)


def normalise(token: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    if weight is None:
        return token
    centred = token - token.sum() / len(token)
    return centred / ((centred * centred).sum() / len(token) + eps).sqrt() * weight + bias


def loops(
    x: Tensor, grid: Triple, pool: TokenPool, *, num_heads: int = HEADS, num_prefix: int = 0, eps: float = 1e-6
) -> Tensor:
    told = Loops(grid, pool.kernel, pool.stride, pool.mode, pool.weight)
    clips = []
    for clip in x:
        heads = []
        for head in clip.chunk(num_heads, dim=-1):
            tokens = dict(zip(places(grid), head[num_prefix:], strict=True))
            pooled = [*head[:num_prefix], *(told.pool(tokens, place) for place in told.results())]
            heads.append(torch.stack([normalise(t, pool.norm_weight, pool.norm_bias, eps) for t in pooled]))
        clips.append(torch.cat(heads, dim=-1))
    return torch.stack(clips)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def make_pool(kernel: Triple, stride: Triple, mode: str, norm: bool) -> TokenPool:
    weight = normal(HEAD_DIM, 1, *kernel) if mode == "conv" else None
    norms = (normal(HEAD_DIM), normal(HEAD_DIM)) if norm else (None, None)
    return TokenPool(kernel, stride, mode, weight, *norms)


# Grid, kernel, stride: odd and even kernels, strides that leave tokens out, and windows larger than the grid.
WINDOWS: list[tuple[Triple, Triple, Triple]] = [
    ((3, 4, 5), (3, 3, 3), (1, 1, 1)),
    ((3, 4, 5), (3, 3, 3), (1, 2, 2)),
    ((1, 5, 6), (1, 3, 3), (1, 4, 4)),
    ((2, 5, 4), (1, 5, 5), (1, 4, 4)),
    ((4, 3, 3), (2, 2, 2), (2, 2, 2)),
    ((3, 4, 3), (4, 2, 1), (1, 2, 1)),
    ((2, 2, 2), (3, 3, 3), (4, 5, 6)),
    ((1, 1, 2), (3, 5, 7), (1, 1, 1)),
    ((2, 3, 2), (1, 1, 1), (1, 1, 1)),
    ((2, 3, 4), (1, 1, 1), (1, 2, 2)),
]


@pytest.mark.parametrize("num_prefix", [0, 1, 2])
@pytest.mark.parametrize("norm", [True, False], ids=["norm", "bare"])
@pytest.mark.parametrize("mode", ["conv", "avg", "max"])
@pytest.mark.parametrize(("grid", "kernel", "stride"), WINDOWS, ids=str)
def test_agrees_with_loops(
    grid: Triple, kernel: Triple, stride: Triple, mode: str, norm: bool, num_prefix: int
) -> None:
    x, pool = normal(2, num_prefix + torch.Size(grid).numel(), HEADS * HEAD_DIM), make_pool(kernel, stride, mode, norm)
    settings = {"num_prefix": num_prefix, "eps": 1e-3, "num_heads": HEADS}
    expected = loops(x, grid, pool, **settings)
    assert expected.shape[1] == num_prefix + torch.Size(pooled_grid(grid, kernel, stride)).numel()
    torch.testing.assert_close(reference.pool_tokens(x, grid, **pool._asdict(), **settings), expected)


def test_gradients_agree_with_those_of_the_loops() -> None:
    grid, pool = (2, 4, 3), make_pool((3, 3, 2), (1, 2, 1), "conv", True)
    leaves = [tensor.requires_grad_() for tensor in (normal(1, 25, HEADS * HEAD_DIM), *pool[3:])]
    expected = loops(leaves[0], grid, pool, num_prefix=1)
    out = reference.pool_tokens(leaves[0], grid, **pool._asdict(), num_heads=HEADS, num_prefix=1)
    grad = torch.randn_like(out)
    torch.testing.assert_close(torch.autograd.grad(out, leaves, grad), torch.autograd.grad(expected, leaves, grad))


def test_of_equal_values_the_first_gets_the_gradient() -> None:
    x = torch.zeros(1, 6, 1, requires_grad=True)
    out = reference.pool_tokens(x, (1, 2, 3), kernel=(1, 2, 2), mode="max")
    (grad,) = torch.autograd.grad(out.sum(), x)
    # Windows begin one row and one column before the grid: their first tokens are those of the row above.
    assert out.shape == (1, 12, 1)
    assert grad.flatten().tolist() == [4, 2, 2, 2, 1, 1]


def test_the_largest_of_a_window_with_nan_is_nan() -> None:
    x = normal(1, 12, 1)
    x[0, 5] = float("nan")
    out = reference.pool_tokens(x, (1, 3, 4), kernel=(1, 3, 3), stride=(1, 2, 2), mode="max")
    assert out.isnan().flatten().tolist() == [True, True, True, True]
    out = reference.pool_tokens(torch.full((1, 12, 1), -float("inf")), (1, 3, 4), kernel=(1, 3, 3), mode="max")
    assert (out == -float("inf")).all()


def test_the_prefix_is_normalised_and_not_pooled() -> None:
    x, pool = normal(1, 13, HEADS * HEAD_DIM), make_pool((3, 3, 3), (1, 2, 2), "conv", True)
    out = reference.pool_tokens(x, (1, 3, 4), **pool._asdict(), num_heads=HEADS, num_prefix=1, eps=1e-5)
    heads = x[:, 0].unflatten(-1, (HEADS, HEAD_DIM))
    expected = torch.nn.functional.layer_norm(heads, (HEAD_DIM,), pool.norm_weight, pool.norm_bias, 1e-5)
    torch.testing.assert_close(out[:, 0], expected.flatten(1))


# Size, kernel, stride, and the size afterwards: those of published models, among them MViTv2-L at 312 x 312.
SIZES = [
    (56, 3, 2, 28), (56, 3, 4, 14), (56, 3, 8, 7), (56, 9, 8, 7), (28, 5, 4, 7), (14, 3, 1, 14), (8, 3, 1, 8),
    (78, 3, 2, 39), (39, 3, 2, 20), (20, 3, 2, 10), (78, 3, 8, 10), (39, 3, 4, 10), (4, 2, 2, 3), (5, 4, 3, 2),
    (2, 3, 9, 1),
]  # fmt: skip


@pytest.mark.parametrize(("size", "kernel", "stride", "pooled"), SIZES)
def test_sizes_after_pooling(size: int, kernel: int, stride: int, pooled: int) -> None:
    assert pooled_grid((size, 1, size), (kernel, 1, kernel), (stride, 1, stride)) == (pooled, 1, pooled)


def test_packed_parts_are_pooled_each_for_itself() -> None:
    grid, tokens = (2, 4, 3), normal(2, 25, 3 * HEADS * HEAD_DIM)
    q, v = make_pool((3, 3, 3), (1, 2, 1), "conv", True), make_pool((1, 3, 3), (1, 1, 2), "avg", False)
    out = reference.pool_qkv(tokens, grid, num_heads=HEADS, q=q, v=v, num_prefix=1, eps=1e-4)
    x = tokens.unflatten(-1, (3, -1)).unbind(2)
    torch.testing.assert_close(out[0], loops(x[0], grid, q, num_prefix=1, eps=1e-4))
    assert torch.equal(out[1], x[1])
    torch.testing.assert_close(out[2], loops(x[2], grid, v, num_prefix=1, eps=1e-4))


@pytest.mark.parametrize("mode", ["conv", "avg", "max"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precision_with_gradients(dtype: torch.dtype, mode: str) -> None:
    """Among them the gradient of a bfloat16 weight, which torch leaves unwritten for some layouts of the tokens."""
    grid, pool = (2, 4, 5), make_pool((3, 3, 3), (1, 2, 2), mode, False)
    leaves = [normal(2, 41, 6), pool.weight] if mode == "conv" else [normal(2, 41, 6)]
    results = []
    for kind in (dtype, torch.float64):
        x, *weight = (leaf.to(dtype).to(kind).requires_grad_() for leaf in leaves)
        shape = {"kernel": pool.kernel, "stride": pool.stride, "mode": mode, "weight": weight[0] if weight else None}
        out = reference.pool_tokens(x, grid, **shape, num_heads=2, num_prefix=1)
        results.append([out, *torch.autograd.grad(out.sum(), [x, *weight])])
    assert all(tensor.dtype == dtype for tensor in results[0])
    eps = torch.finfo(dtype).eps
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual.double(), expected, rtol=8 * eps, atol=8 * eps * expected.abs().max().item())
