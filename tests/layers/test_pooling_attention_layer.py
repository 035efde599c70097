import pytest
import torch
from oracles import randomise
from torch import Tensor

from vtfast.layers import PoolingAttention, TokenPooling
from vtfast.ops import TokenPool, pool_tokens, pooling_attention

GRID = (2, 4, 6)
POOLED = {"q_kernel": (3, 3, 3), "q_stride": (1, 2, 2), "kv_kernel": (1, 3, 3), "kv_stride": (1, 2, 3)}


def layer(**options: object) -> PoolingAttention:
    return randomise(PoolingAttention(16, 2, **(POOLED | options)), seed=0).double()


def part(
    attention: PoolingAttention,
    x: Tensor,  # [B, P + T*H*W, C]
    name: str,
) -> Tensor:  # [B, P + T'*H'*W', C']
    """One of q, k and v by single steps."""
    pooling: TokenPooling | None = getattr(attention, f"pool_{name}")

    def pooled(tokens: Tensor) -> Tensor:
        if pooling is None:
            return tokens
        pool = TokenPool(pooling.kernel, pooling.stride, pooling.mode, pooling.weight)
        if pooling.norm is not None:
            pool = pool._replace(norm_weight=pooling.norm.weight, norm_bias=pooling.norm.bias)
        return pool_tokens(tokens, GRID, **pool._asdict(), num_heads=attention.pool_heads, num_prefix=1)

    if attention.pool_first:
        return getattr(attention, name)(pooled(x))
    return pooled(attention.qkv(x).chunk(3, dim=-1)["qkv".index(name)])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "avg"},
        {"mode": "max"},
        {"dim_out": 32},
        {"qkv_bias": False},
        {"q_kernel": (1, 1, 1), "q_stride": (1, 1, 1)},
        {"kv_kernel": (1, 1, 1), "kv_stride": (1, 1, 1)},
        {"pool_first": True, "dim_out": 32},
        {"pool_first": True, "mode": "conv_unshared"},
        {"residual": True},
        {"residual_prefix": True},
    ],
    ids=str,
)
def test_is_pooling_and_attention_between_projections(options: dict[str, object]) -> None:
    attention = layer(**options)
    x = torch.randn(2, 1 + 48, 16, dtype=torch.float64, requires_grad=True)
    q, k, v = (part(attention, x, name) for name in "qkv")
    q_grid = attention.q_grid(GRID)
    k_grid = GRID if attention.pool_k is None else attention.pool_k.grid(GRID)
    settings = {name: options.get(name, False) for name in ("residual", "residual_prefix")}
    expected = attention.proj(pooling_attention(q, k, v, q_grid, k_grid, num_heads=2, num_prefix=1, **settings))
    actual = attention(x, GRID)
    torch.testing.assert_close(actual, expected)
    inputs, cotangent = [x, *attention.parameters()], torch.randn_like(actual)
    grads, wanted = (torch.autograd.grad((out * cotangent).sum(), inputs) for out in (actual, expected))
    torch.testing.assert_close(grads, wanted)


def test_relative_positions_of_any_subset_of_axes() -> None:
    """A table of zeros is none."""
    full, spatial = layer(rel_pos_sizes=(2, 4, 6)), layer(rel_pos_sizes=(0, 4, 6))
    assert spatial.rel_pos_t is None
    weights = full.state_dict()
    spatial.load_state_dict({name: value for name, value in weights.items() if name != "rel_pos_t"})
    x = torch.randn(2, 1 + 48, 16, dtype=torch.float64)
    assert not torch.allclose(full(x, GRID), spatial(x, GRID))
    full.rel_pos_t.data.zero_()
    torch.testing.assert_close(full(x, GRID), spatial(x, GRID))


def test_relative_positions_are_interpolated_to_the_longer_grid() -> None:
    attention = layer(rel_pos_sizes=(5, 2, 3))
    fitting = layer(rel_pos_sizes=(2, 2, 3))
    weights = attention.state_dict()
    table = weights["rel_pos_t"].T[None]
    weights["rel_pos_t"] = torch.nn.functional.interpolate(table, size=3, mode="linear")[0].T
    fitting.load_state_dict(weights)
    x = torch.randn(2, 1 + 48, 16, dtype=torch.float64)
    torch.testing.assert_close(attention(x, GRID), fitting(x, GRID))


def test_adds_the_residual_and_drops_in_training_only() -> None:
    attention = layer(dropout=0.5)
    x, residual = torch.randn(2, 1 + 48, 16, dtype=torch.float64), torch.randn(2, 1 + 12, 16, dtype=torch.float64)
    torch.testing.assert_close(attention.eval()(x, GRID, residual=residual), attention(x, GRID) + residual)
    dropped = attention.train()(x, GRID, residual=residual) == residual
    assert 0.4 < dropped.float().mean() < 0.6


def test_without_prefix() -> None:
    attention = layer()
    assert attention(torch.randn(2, 48, 16, dtype=torch.float64), GRID, num_prefix=0).shape == (2, 12, 16)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"mode": "min"}, "mode must be one of conv, conv_unshared, avg, max, got 'min'"),
        ({"mode": "conv_unshared"}, "mode must be another than 'conv_unshared' without pool_first"),
        ({"dim_out": 15}, "num_heads must divide dim_out = 15, got 2"),
        ({"q_kernel": (3, 0, 3)}, "kernel must be an int or three ints"),
    ],
    ids=["mode", "unshared", "heads", "kernel"],
)
def test_rejects(option: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layer(**option)


def test_token_pooling_rejects_mode() -> None:
    with pytest.raises(ValueError, match="mode must be one of conv, avg, max, got 'min'"):
        TokenPooling(3, mode="min")


def test_initial_weights_of_a_pooling_are_those_of_a_convolution() -> None:
    pooling = TokenPooling(3, channels=96)
    bound = 27**-0.5
    assert 0.95 * bound < pooling.weight.abs().max() <= bound
    assert (pooling.norm.weight == 1).all()
    assert pooling.norm.eps == 1e-6
