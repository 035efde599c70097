"""The reference against a statement of the operation that shares nothing with it: one query at a time, in loops."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from vtfast import reference

Triple = tuple[int, int, int]
AXES = range(3)


class Loops:
    """Grid attention told token by token. A place is a (t, h, w) of the padded grid; a key is a place or a prefix."""

    def __init__(
        self,
        qkv: Tensor,  # [B, P + T*H*W, 3*C]
        grid: Triple,
        *,
        num_heads: int,
        block: Triple,
        dilation: Triple = (1, 1, 1),
        shift: Triple = (0, 0, 0),
        bias_table: Tensor | None = None,
        bias_window: Triple | None = None,
        bias_order: str = "block",
        pad_qkv: Tensor | None = None,
        pad_keys: bool = True,
        num_prefix: int = 0,
        prefix_keys: bool = True,
        prefix_queries: str = "none",
        key_mask: Tensor | None = None,
        scale: float | None = None,
    ) -> None:
        self.head_dim = qkv.shape[-1] // 3 // num_heads
        self.qkv = qkv.view(*qkv.shape[:2], 3, num_heads, self.head_dim)
        pad = torch.zeros(qkv.shape[-1], dtype=qkv.dtype) if pad_qkv is None else pad_qkv
        self.pad = pad.view(3, num_heads, self.head_dim)
        self.grid, self.block, self.dilation, self.shift = grid, block, dilation, shift
        self.bias_table, self.window, self.bias_order = bias_table, bias_window or block, bias_order
        self.num_prefix, self.prefix_keys, self.prefix_queries = num_prefix, prefix_keys, prefix_queries
        self.key_mask, self.pad_keys = key_mask, pad_keys
        self.scale = self.head_dim**-0.5 if scale is None else scale
        self.padded = [-(-grid[a] // self.span(a)) * self.span(a) for a in AXES]

    def span(self, axis: int) -> int:
        return self.block[axis] * self.dilation[axis]

    def places(self) -> Iterator[Triple]:
        yield from itertools.product(*(range(size) for size in self.padded))

    def exists(self, place: Triple) -> bool:
        return all(place[a] < self.grid[a] for a in AXES)

    def token(self, place: Triple) -> int:
        return (place[0] * self.grid[1] + place[1]) * self.grid[2] + place[2]

    def rolled(self, place: Triple) -> list[int]:
        return [(place[a] - self.shift[a]) % self.padded[a] for a in AXES]

    def group(self, place: Triple) -> tuple[tuple[int, int], ...]:
        """Which span, and which offset inside the dilation, a place falls into on each axis once rolled."""
        rolled = self.rolled(place)
        return tuple((rolled[a] // self.span(a), rolled[a] % self.dilation[a]) for a in AXES)

    def slot(self, place: Triple) -> list[int]:
        rolled = self.rolled(place)
        return [rolled[a] % self.span(a) // self.dilation[a] for a in AXES]

    def are_neighbours(self, one: Triple, other: Triple) -> bool:
        """In one group, and as far from each other in the grid as in the group: the roll tore nothing apart."""
        if self.group(one) != self.group(other):
            return False
        here, there = self.slot(one), self.slot(other)
        return all(one[a] - other[a] == (here[a] - there[a]) * self.dilation[a] for a in AXES)

    def bias(self, query: Triple, key: Triple, head: int) -> Tensor | float:
        if self.bias_table is None:
            return 0.0
        positions = [self.slot(query), self.slot(key)]
        if self.bias_order == "window":
            # The slot's number, read as a number of the whole window.
            numbers = [(s[0] * self.block[1] + s[1]) * self.block[2] + s[2] for s in positions]
            _, height, width = self.window
            positions = [[n // (height * width), n // width % height, n % width] for n in numbers]
        table = self.bias_table.view(*(2 * size - 1 for size in self.window), -1)
        t, h, w = (positions[0][a] - positions[1][a] + self.window[a] - 1 for a in AXES)
        return table[t, h, w, head]

    def row(self, batch: int, place: Triple, which: int, head: int) -> Tensor:
        if not self.exists(place):
            return self.pad[which, head]
        return self.qkv[batch, self.num_prefix + self.token(place), which, head]

    def is_open(self, batch: int, place: Triple) -> bool:
        if not self.exists(place):
            return self.pad_keys
        return self.key_mask is None or bool(self.key_mask[batch, self.token(place)])

    def attend(self, query: Tensor, keys: list[tuple[Tensor, Tensor, Tensor | float]]) -> Tensor:
        """Keys are (k, v, bias)."""
        if not keys:
            return torch.zeros_like(query)
        scores = torch.stack([self.scale * query.dot(k) + bias for k, _, bias in keys])
        weights = (scores - scores.max()).exp()
        return sum(w * v for w, (_, v, _) in zip(weights / weights.sum(), keys, strict=True))

    def prefix_key_list(self, batch: int, head: int) -> list[tuple[Tensor, Tensor, float]]:
        return [(self.qkv[batch, i, 1, head], self.qkv[batch, i, 2, head], 0.0) for i in range(self.num_prefix)]

    def grid_token(self, batch: int, head: int, place: Triple) -> Tensor:
        keys: list[tuple[Tensor, Tensor, Tensor | float]] = [
            (self.row(batch, key, 1, head), self.row(batch, key, 2, head), self.bias(place, key, head))
            for key in self.places()
            if self.are_neighbours(place, key) and self.is_open(batch, key)
        ]
        if self.prefix_keys:
            keys += self.prefix_key_list(batch, head)
        return self.attend(self.row(batch, place, 0, head), keys)

    def prefix_token(self, batch: int, head: int, prefix: int) -> Tensor:
        query = self.qkv[batch, prefix, 0, head]

        def keys_among(places: list[Triple]) -> list[tuple[Tensor, Tensor, Tensor | float]]:
            return [
                (self.row(batch, key, 1, head), self.row(batch, key, 2, head), 0.0)
                for key in places
                if self.is_open(batch, key)
            ]

        if self.prefix_queries == "global":
            tokens = [place for place in self.places() if self.exists(place)]
            return self.attend(query, keys_among(tokens) + self.prefix_key_list(batch, head))
        groups: dict[Any, list[Triple]] = {}
        for place in self.places():
            groups.setdefault(self.group(place), []).append(place)
        shared = self.prefix_key_list(batch, head) if self.prefix_keys else []
        return torch.stack([self.attend(query, keys_among(members) + shared) for members in groups.values()]).mean(0)

    def run(self) -> Tensor:
        batches, heads = range(self.qkv.shape[0]), range(self.qkv.shape[3])
        prefix = range(self.num_prefix if self.prefix_queries != "none" else 0)
        tokens = [place for place in self.places() if self.exists(place)]
        return torch.stack(
            [
                torch.stack(
                    [torch.cat([self.prefix_token(b, h, i) for h in heads]) for i in prefix]
                    + [torch.cat([self.grid_token(b, h, place) for h in heads]) for place in tokens]
                )
                for b in batches
            ]
        )


CASES: dict[str, dict[str, Any]] = {
    "windows": {"grid": (2, 4, 4), "block": (2, 2, 2)},
    "shifted": {"grid": (2, 4, 4), "block": (2, 2, 2), "shift": (0, 1, 1)},
    "shifted-in-one-window": {"grid": (2, 3, 3), "block": (2, 3, 3), "shift": (1, 1, 2)},
    "padded": {"grid": (3, 2, 5), "block": (2, 2, 3)},
    "padded-and-shifted": {"grid": (3, 2, 5), "block": (2, 3, 3), "shift": (1, 2, 1)},
    "padded-with-zeros": {"grid": (3, 2, 5), "block": (2, 2, 3), "pad": False},
    "smaller-last-groups": {"grid": (3, 2, 5), "block": (2, 2, 3), "pad_keys": False},
    "smaller-last-groups-shifted": {"grid": (3, 2, 5), "block": (2, 3, 3), "shift": (1, 2, 1), "pad_keys": False},
    "smaller-last-groups-masked": {
        "grid": (3, 3, 1), "block": (2, 2, 2), "open_share": 0.5, "pad_keys": False, "num_prefix": 1,
        "prefix_queries": "mean",
    },
    "groups-of-nothing": {
        "grid": (1, 1, 2), "block": (1, 1, 2), "dilation": (1, 2, 2), "pad_keys": False, "num_prefix": 1,
        "prefix_keys": False, "prefix_queries": "mean",
    },
    "dilated": {"grid": (1, 4, 6), "block": (1, 2, 3), "dilation": (1, 2, 2)},
    "dilated-padded-shifted": {"grid": (2, 3, 5), "block": (2, 2, 2), "dilation": (1, 1, 2), "shift": (1, 1, 3)},
    "larger-table": {"grid": (2, 3, 4), "block": (2, 3, 2), "bias_window": (3, 3, 4)},
    "table-by-window": {"grid": (2, 3, 4), "block": (2, 3, 2), "bias_window": (3, 4, 3), "bias_order": "window"},
    "no-bias": {"grid": (2, 3, 4), "block": (2, 1, 4), "bias": False},
    "prefix-keys": {"grid": (2, 2, 3), "block": (1, 2, 2), "num_prefix": 2},
    "prefix-no-keys": {"grid": (2, 2, 2), "block": (1, 2, 2), "num_prefix": 2, "prefix_keys": False},
    "prefix-global": {"grid": (2, 2, 3), "block": (1, 2, 2), "num_prefix": 1, "prefix_queries": "global"},
    "prefix-global-no-keys": {
        "grid": (2, 2, 3), "block": (1, 2, 2), "num_prefix": 2, "prefix_queries": "global", "prefix_keys": False,
    },
    "prefix-mean": {
        "grid": (2, 2, 3), "block": (1, 2, 2), "num_prefix": 2, "prefix_queries": "mean", "shift": (0, 0, 1),
    },
    "prefix-mean-no-keys": {
        "grid": (2, 2, 3), "block": (1, 2, 2), "num_prefix": 1, "prefix_queries": "mean", "prefix_keys": False,
    },
    "masked": {"grid": (2, 3, 3), "block": (2, 2, 3), "open_share": 0.5, "shift": (0, 1, 1)},
    "masked-groups": {"grid": (2, 2, 3), "block": (1, 1, 1), "open_share": 0.5, "num_prefix": 1, "prefix_keys": False},
    "masked-prefix": {
        "grid": (2, 2, 3), "block": (2, 1, 1), "open_share": 0.3, "num_prefix": 1, "prefix_queries": "mean",
    },
    "masked-global": {
        "grid": (2, 2, 3), "block": (2, 1, 1), "open_share": 0.3, "num_prefix": 1, "prefix_queries": "global",
    },
    "scale": {"grid": (2, 2, 2), "block": (1, 2, 2), "scale": -0.3},
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_loops_over_tokens(case: str) -> None:
    settings = dict(CASES[case])
    bias, pad, open_share = settings.pop("bias", True), settings.pop("pad", True), settings.pop("open_share", 1.0)
    grid, window = settings.pop("grid"), settings.get("bias_window", settings["block"])
    tokens = grid[0] * grid[1] * grid[2]
    rows = (2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1)
    qkv = torch.randn(2, settings.get("num_prefix", 0) + tokens, 12, dtype=torch.float64)
    settings |= {
        "num_heads": 2,
        "bias_table": torch.randn(rows, 2, dtype=torch.float64) if bias else None,
        "pad_qkv": torch.randn(12, dtype=torch.float64) if pad else None,
        "key_mask": torch.rand(2, tokens) < open_share if open_share < 1 else None,
    }
    torch.testing.assert_close(reference.grid_attention(qkv, grid, **settings), Loops(qkv, grid, **settings).run())


def test_last_groups_are_smaller_where_padding_is_no_key() -> None:
    """Attention among the existing tokens of equal group, and a padding that would show wherever it took part."""
    grid, block, dilation = (3, 5, 7), (2, 2, 2), (1, 1, 2)
    qkv = torch.randn(2, 105, 12, dtype=torch.float64)
    pad = torch.full((12,), 1e3, dtype=torch.float64, requires_grad=True)
    out = reference.grid_attention(qkv, grid, num_heads=1, block=block, dilation=dilation, pad_qkv=pad, pad_keys=False)
    t, h, w = torch.cartesian_prod(*(torch.arange(size) for size in grid)).unbind(1)
    group = torch.stack([t // 2, h // 2, w // 4, w % 2], dim=1)
    allowed = (group[:, None] == group[None]).all(dim=-1)
    expected = torch.nn.functional.scaled_dot_product_attention(*qkv.chunk(3, dim=-1), attn_mask=allowed)
    torch.testing.assert_close(out, expected)
    (d_pad,) = torch.autograd.grad(out.square().sum(), pad)
    assert (d_pad == 0).all()


def test_gradients_are_those_of_the_formula() -> None:
    qkv = torch.randn(1, 13, 6, dtype=torch.float64, requires_grad=True)
    table = torch.randn(27, 1, dtype=torch.float64, requires_grad=True)

    def attention(qkv: Tensor, table: Tensor) -> Tensor:
        return reference.grid_attention(
            qkv, (2, 2, 3), num_heads=1, block=(2, 2, 2), shift=(0, 1, 1), bias_table=table, num_prefix=1,
            prefix_queries="mean",
        )  # fmt: skip

    assert torch.autograd.gradcheck(attention, (qkv, table))


def test_five_dimensional_tokens() -> None:
    qkv = torch.randn(2, 2, 3, 4, 12)
    settings = {"num_heads": 2, "block": (1, 2, 2), "shift": (0, 1, 0)}
    out = reference.grid_attention(qkv, (2, 3, 4), **settings)
    assert out.shape == (2, 2, 3, 4, 4)
    assert torch.equal(out.flatten(1, 3), reference.grid_attention(qkv.flatten(1, 3), (2, 3, 4), **settings))
