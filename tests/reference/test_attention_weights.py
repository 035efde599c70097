"""Weights against the operation itself: where v holds the unit vectors, the output of a query is its row of weights."""

from typing import Any

import pytest
import torch
from torch import Tensor

from vtfast import reference

CASES: dict[str, dict[str, Any]] = {
    "windows": {"grid": (2, 4, 4), "block": (2, 2, 2), "bias": True},
    "shifted-padded": {"grid": (3, 2, 5), "block": (2, 2, 3), "shift": (1, 1, 2), "bias": True},
    "padding-not-attended": {"grid": (3, 2, 5), "block": (2, 2, 3), "pad_keys": False},
    "dilated": {"grid": (2, 3, 5), "block": (2, 2, 2), "dilation": (1, 1, 3), "shift": (1, 1, 4)},
    "prefix-alone": {"grid": (2, 2, 3), "block": (2, 1, 1), "num_prefix": 2, "prefix_keys": False},
    "prefix-keys": {"grid": (2, 2, 3), "block": (1, 2, 2), "num_prefix": 2},
    "prefix-global": {"grid": (2, 2, 3), "block": (1, 2, 2), "num_prefix": 1, "prefix_queries": "global"},
    "prefix-mean": {"grid": (2, 2, 4), "block": (1, 2, 2), "num_prefix": 2, "prefix_queries": "mean"},
    "prefix-mean-padded": {"grid": (2, 2, 3), "block": (1, 2, 2), "num_prefix": 2, "prefix_queries": "mean"},
    "prefix-mean-no-keys": {
        "grid": (2, 2, 4), "block": (1, 2, 2), "num_prefix": 1, "prefix_queries": "mean", "prefix_keys": False,
    },
    "masked": {"grid": (2, 2, 3), "block": (2, 1, 1), "open_share": 0.4, "num_prefix": 1, "prefix_queries": "mean"},
    "masked-groups": {"grid": (2, 2, 3), "block": (1, 1, 1), "open_share": 0.4},
    "scale": {"grid": (2, 2, 2), "block": (1, 2, 2), "scale": -0.3},
}  # fmt: skip


def problem(case: str, dtype: torch.dtype = torch.float64) -> tuple[Tensor, tuple[int, int, int], dict[str, Any]]:
    """Random q and k, v of unit vectors (one for each token and one for padding), and the settings of a case."""
    settings = dict(CASES[case])
    grid, bias, open_share = settings.pop("grid"), settings.pop("bias", False), settings.pop("open_share", None)
    block, heads = settings["block"], 2
    tokens, prefix = grid[0] * grid[1] * grid[2], settings.get("num_prefix", 0)
    units = torch.eye(prefix + tokens + 1, dtype=dtype)[:, None].expand(-1, heads, -1)  # [P + T*H*W + 1, heads, D]
    q, k = torch.randn(2, 2, prefix + tokens + 1, heads, units.shape[-1], dtype=dtype).unbind(0)
    v = units.expand(2, -1, -1, -1)
    packed = torch.stack([q, k, v], dim=2).flatten(2)  # [B, P + T*H*W + 1, 3*C]
    settings |= {"num_heads": heads, "pad_qkv": packed[0, -1]}
    if bias:
        rows = (2 * block[0] - 1) * (2 * block[1] - 1) * (2 * block[2] - 1)
        settings["bias_table"] = torch.randn(rows, heads, dtype=dtype)
    if open_share is not None:
        settings["key_mask"] = torch.rand(2, tokens) < open_share
    return packed[:, :-1], grid, settings


def clip_map(
    weights: reference.AttentionWeights,
) -> Tensor:  # [B, num_heads, P + T*H*W or T*H*W, P + T*H*W]
    """All rows there are."""
    tokens = weights.grid[0] * weights.grid[1] * weights.grid[2]
    return weights.rows(torch.arange(weights.num_prefix if weights.prefix is None else 0, weights.num_prefix + tokens))


@pytest.mark.parametrize("case", CASES)
def test_rows_are_what_the_output_weighs_v_with(case: str) -> None:
    qkv, grid, settings = problem(case)
    out = reference.grid_attention(qkv, grid, **settings)
    rows = out.unflatten(-1, (2, -1)).transpose(1, 2)[..., :-1]  # the last channel counts what goes to padding
    torch.testing.assert_close(clip_map(reference.attention_weights(qkv, grid, **settings)), rows)


@pytest.mark.parametrize("case", CASES)
def test_rows_sum_to_one(case: str) -> None:
    qkv, grid, settings = problem(case)
    weights = reference.attention_weights(qkv, grid, **settings)
    sums = weights.groups.sum(dim=-1)
    # A query that may attend to nothing: its group has no open key, and there is no prefix.
    if case == "masked-groups":
        mask = settings["key_mask"][:, weights.tokens][:, :, None].expand_as(sums)
        torch.testing.assert_close(sums, mask.to(sums.dtype))
    else:
        torch.testing.assert_close(sums, torch.ones_like(sums))
    if weights.prefix is not None and case != "prefix-mean-padded":
        torch.testing.assert_close(weights.prefix.sum(dim=-1), torch.ones_like(weights.prefix[..., 0]))


def test_slots_name_the_tokens_they_hold() -> None:
    qkv, grid, settings = problem("shifted-padded")
    weights = reference.attention_weights(qkv, grid, **settings)
    tokens = torch.arange(30).view(3, 2, 5)
    # Rolled by (1, 1, 2), padded to (4, 2, 6): the first group takes frames 1 and 2, rows 1 and 0, columns 2, 3, 4.
    assert weights.tokens[0].tolist() == tokens[1:3].flip(1)[:, :, 2:5].flatten().tolist()
    assert weights.tokens[weights.tokens >= 0].sort().values.tolist() == list(range(30))
    assert (weights.tokens == -1).sum() == 4 * 2 * 6 - 30


@pytest.mark.parametrize("case", CASES)
def test_trace_back_is_the_product_with_the_clips_map(case: str) -> None:
    qkv, grid, settings = problem(case)
    weights = reference.attention_weights(qkv, grid, **settings)
    dense = clip_map(weights).mean(dim=1)  # [B, P + T*H*W or T*H*W, P + T*H*W]
    if weights.prefix is None:  # the prefix stays what it is
        identity = torch.eye(dense.shape[-1], dtype=dense.dtype)[: weights.num_prefix]
        dense = torch.cat([identity.expand(2, -1, -1), dense], dim=1)
    shares = torch.rand(2, 3, dense.shape[-1], dtype=dense.dtype)
    torch.testing.assert_close(weights.trace_back(shares), shares @ dense)
    torch.testing.assert_close(weights.mean_heads().trace_back(shares), shares @ dense)


def test_rows_come_in_the_order_asked_for() -> None:
    qkv, grid, settings = problem("prefix-mean")
    weights = reference.attention_weights(qkv, grid, **settings)
    queries = torch.tensor([9, 1, 2, 0, 9])
    assert torch.equal(weights.rows(queries), clip_map(weights)[:, :, queries])


def test_a_prefix_that_does_not_attend_has_no_rows() -> None:
    qkv, grid, settings = problem("prefix-alone")
    with pytest.raises(ValueError, match="queries must be at least 2"):
        reference.attention_weights(qkv, grid, **settings).rows(torch.tensor([5, 1]))


def test_weights_are_differentiable() -> None:
    qkv, grid, settings = problem("prefix-mean")
    weights = reference.attention_weights(qkv.requires_grad_(), grid, **settings)
    shares = torch.rand(2, 1, 18, dtype=torch.float64)
    (grad,) = torch.autograd.grad((weights.trace_back(shares) * torch.arange(18)).sum(), qkv)
    q, k, v = grad.unflatten(-1, (3, -1)).unbind(2)
    assert q.any()
    assert k.any()
    assert not v.any()
