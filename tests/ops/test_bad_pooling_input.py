"""Every mistake in a call of a pooling operation has an error that names the argument, and what was wanted."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from operator_guards import rejects
from torch import Tensor

from vtfast import ops
from vtfast.reference import TokenPool

GRID, KERNEL, HEADS, CHANNELS = (2, 4, 6), (3, 3, 3), 2, 8
Mistakes = dict[str, tuple[dict[str, Any], type[Exception], str]]


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


WEIGHT, NORM = zeros(4, 1, 3, 3, 3), zeros(4)
TYPES = "float32, bfloat16, float16, float64"

# What is wrong with tokens of any name.
TOKEN_MISTAKES: Mistakes = {
    "array": ({"x": np.zeros((2, 48, 8))}, TypeError, "x must be a tensor, got ndarray"),
    "int": ({"x": zeros(2, 48, 8, dtype=torch.int64)}, TypeError, f"x must be one of {TYPES}, got int64"),
    "sparse": ({"x": zeros(2, 48, 8).to_sparse()}, TypeError, "x must be a dense tensor, got layout torch.sparse_coo"),
    "token-count": (
        {"x": zeros(2, 47, 8)},
        ValueError,
        "x must be [B, 48, C] (num_prefix + T*H*W tokens), got shape (2, 47, 8)",
    ),
    "volume": ({"x": zeros(2, 2, 4, 6, 8)}, ValueError, "x must be [B, 48, C] (num_prefix + T*H*W tokens), got shape"),
    "flat": ({"x": zeros(48, 8)}, ValueError, "x must be [B, 48, C]"),
    "without-channels": (
        {"x": zeros(2, 48, 0)},
        ValueError,
        "num_heads must divide C, the last dimension 0 of x, got 2",
    ),
    "heads": ({"num_heads": 3}, ValueError, "num_heads must divide C, the last dimension 8 of x, got 3"),
    "heads-zero": ({"num_heads": 0}, ValueError, "num_heads must be an int of at least 1, got 0"),
    "heads-bool": ({"num_heads": True}, ValueError, "num_heads must be an int of at least 1, got True"),
    "prefix-negative": ({"num_prefix": -1}, ValueError, "num_prefix must be an int of at least 0, got -1"),
    "prefix-float": ({"num_prefix": 1.0}, ValueError, "num_prefix must be an int of at least 0, got 1.0"),
    "prefix-missing": ({"num_prefix": 1}, ValueError, "x must be [B, 49, C] (num_prefix + T*H*W tokens)"),
}

POOL_MISTAKES: Mistakes = {
    "kernel-zero": (
        {"kernel": (0, 3, 3)},
        ValueError,
        "kernel must be an int or three ints (T, H, W), each at least 1, got (0, 3, 3)",
    ),
    "kernel-pair": ({"kernel": (3, 3)}, TypeError, "kernel must be an int or three ints (T, H, W)"),
    "kernel-float": ({"kernel": 3.0}, TypeError, "kernel must be an int or three ints (T, H, W)"),
    "stride-zero": (
        {"stride": (1, 0, 1)},
        ValueError,
        "stride must be an int or three ints (T, H, W), each at least 1",
    ),
    "stride-text": ({"stride": "2"}, TypeError, "stride must be an int or three ints (T, H, W)"),
    "mode": ({"mode": "mean"}, ValueError, "mode must be one of conv, avg, max, got 'mean'"),
    "mode-none": ({"mode": None}, ValueError, "mode must be one of conv, avg, max, got None"),
    "weight-missing": ({"weight": None}, ValueError, "weight must be a tensor where mode is 'conv', got None"),
    "weight-of-max": ({"mode": "max"}, ValueError, "weight must be None where mode is 'max', got a tensor"),
    "weight-of-avg": ({"mode": "avg"}, ValueError, "weight must be None where mode is 'avg', got a tensor"),
    "weight-shape": (
        {"weight": zeros(8, 1, 3, 3, 3)},
        ValueError,
        "weight must have shape (4, 1, 3, 3, 3), got (8, 1, 3, 3, 3)",
    ),
    "weight-kernel": ({"kernel": (1, 3, 3)}, ValueError, "weight must have shape (4, 1, 1, 3, 3), got (4, 1, 3, 3, 3)"),
    "weight-rank": ({"weight": zeros(4, 3, 3, 3)}, ValueError, "weight must have shape (4, 1, 3, 3, 3)"),
    "weight-int": ({"weight": WEIGHT.int()}, TypeError, f"weight must be one of {TYPES}, got int32"),
    "weight-device": (
        {"weight": WEIGHT.to("meta")},
        ValueError,
        "weight must be on the device of the tokens, cpu, got meta",
    ),
    "norm-weight-alone": (
        {"norm_weight": NORM},
        ValueError,
        "norm_weight and norm_bias must be given together, got one of them",
    ),
    "norm-bias-alone": ({"norm_bias": NORM}, ValueError, "norm_weight and norm_bias must be given together"),
    "norm-weight-shape": (
        {"norm_weight": zeros(8), "norm_bias": NORM},
        ValueError,
        "norm_weight must have shape (4,), got (8,)",
    ),
    "norm-bias-shape": (
        {"norm_weight": NORM, "norm_bias": zeros(1, 4)},
        ValueError,
        "norm_bias must have shape (4,), got (1, 4)",
    ),
    "norm-bias-list": (
        {"norm_weight": NORM, "norm_bias": [0.0] * 4},
        TypeError,
        "norm_bias must be a tensor, got list",
    ),
}

GRID_MISTAKES: Mistakes = {
    "grid-pair": ({"grid": (4, 6)}, TypeError, "grid must be an int or three ints (T, H, W), each at least 1"),
    "grid-zero": ({"grid": (0, 4, 6)}, ValueError, "grid must be an int or three ints (T, H, W), each at least 1"),
}


@pytest.mark.parametrize("mistake", TOKEN_MISTAKES | POOL_MISTAKES | GRID_MISTAKES)
def test_pool_tokens(mistake: str) -> None:
    wrong, error, message = (TOKEN_MISTAKES | POOL_MISTAKES | GRID_MISTAKES)[mistake]
    arguments = {"x": zeros(2, 48, 8), "grid": GRID, "kernel": KERNEL, "weight": WEIGHT, "num_heads": HEADS}
    ops.pool_tokens(**arguments)
    with pytest.raises(error, match=re.escape(message)):
        ops.pool_tokens(**(arguments | wrong))


@pytest.mark.parametrize("part", ["q", "k", "v"])
@pytest.mark.parametrize("mistake", POOL_MISTAKES)
def test_pools_of_pool_qkv(mistake: str, part: str) -> None:
    """Each message names the part."""
    wrong, error, message = POOL_MISTAKES[mistake]
    pool = TokenPool(KERNEL, weight=WEIGHT)
    arguments = {"qkv": zeros(2, 48, 24), "grid": GRID, "num_heads": HEADS}
    ops.pool_qkv(**arguments, **{part: pool})
    named = message.replace("norm_bias must be given", f"{part}.norm_bias must be given")
    with pytest.raises(error, match=re.escape(f"{part}.{named}")):
        ops.pool_qkv(**arguments, **{part: pool._replace(**wrong)})


QKV_MISTAKES: Mistakes = GRID_MISTAKES | {
    "qkv-array": ({"qkv": np.zeros((2, 48, 24))}, TypeError, "qkv must be a tensor, got ndarray"),
    "qkv-int": ({"qkv": zeros(2, 48, 24, dtype=torch.int32)}, TypeError, f"qkv must be one of {TYPES}, got int32"),
    "qkv-volume": (
        {"qkv": zeros(2, 2, 4, 6, 24)},
        ValueError,
        "qkv must be [B, num_prefix + T*H*W, 3*C], got shape (2, 2, 4, 6, 24)",
    ),
    "qkv-tokens": ({"qkv": zeros(2, 47, 24)}, ValueError, "qkv must be [B, 48, 3*C] (num_prefix + T*H*W tokens)"),
    "heads": ({"num_heads": 3}, ValueError, "num_heads must divide C, a third of qkv's last dimension 24, got 3"),
    "prefix": ({"num_prefix": -1}, ValueError, "num_prefix must be an int of at least 0, got -1"),
    "pool-triple": ({"q": (3, 3, 3)}, TypeError, "q must be a TokenPool or None, got tuple"),
    "pool-dict": ({"v": {}}, TypeError, "v must be a TokenPool or None, got dict"),
}


@pytest.mark.parametrize("mistake", QKV_MISTAKES)
def test_pool_qkv(mistake: str) -> None:
    wrong, error, message = QKV_MISTAKES[mistake]
    arguments = {"qkv": zeros(2, 48, 24), "grid": GRID, "num_heads": HEADS}
    with pytest.raises(error, match=re.escape(message)):
        ops.pool_qkv(**(arguments | wrong))


KEYS = (2, 2, 3)
ATTENTION_MISTAKES: Mistakes = {
    "q-array": ({"q": np.zeros((2, 48, 8))}, TypeError, "q must be a tensor, got ndarray"),
    "q-tokens": (
        {"q": zeros(2, 12, 8)},
        ValueError,
        "q must be [B, 48, C] (num_prefix + T*H*W tokens), got shape (2, 12, 8)",
    ),
    "k-tokens": (
        {"k": zeros(2, 48, 8)},
        ValueError,
        "k must be [B, 12, C] (num_prefix + T*H*W tokens), got shape (2, 48, 8)",
    ),
    "v-tokens": (
        {"v": zeros(2, 13, 8)},
        ValueError,
        "v must be [B, 12, C] (num_prefix + T*H*W tokens), got shape (2, 13, 8)",
    ),
    "k-list": ({"k": [0.0]}, TypeError, "k must be a tensor, got list"),
    "k-dtype": (
        {"k": zeros(2, 12, 8, dtype=torch.float64)},
        TypeError,
        "k must have the dtype of q, torch.float32, got torch.float64",
    ),
    "v-batch": (
        {"v": zeros(1, 12, 8)},
        ValueError,
        "v must have the batch 2 and 8 channels of q, got shape (1, 12, 8)",
    ),
    "v-channels": (
        {"v": zeros(2, 12, 16)},
        ValueError,
        "v must have the batch 2 and 8 channels of q, got shape (2, 12, 16)",
    ),
    "k-device": ({"k": zeros(2, 12, 8).to("meta")}, ValueError, "k must be on the device of q, cpu, got meta"),
    "q-grid": ({"q_grid": (2, 4)}, TypeError, "q_grid must be an int or three ints (T, H, W), each at least 1"),
    "k-grid": ({"k_grid": (2, 0, 3)}, ValueError, "k_grid must be an int or three ints (T, H, W), each at least 1"),
    "heads": ({"num_heads": 3}, ValueError, "num_heads must divide C, the last dimension 8 of q, got 3"),
    "heads-float": ({"num_heads": 2.0}, ValueError, "num_heads must be an int of at least 1, got 2.0"),
    "prefix": ({"num_prefix": 1}, ValueError, "q must be [B, 49, C] (num_prefix + T*H*W tokens), got shape (2, 48, 8)"),
    "table-length": (
        {"rel_pos_h": zeros(3, 4)},
        ValueError,
        "rel_pos_h must have shape (7, 4) for 4 queries and 2 keys along H, got (3, 4)",
    ),
    "table-width": (
        {"rel_pos_t": zeros(3, 8)},
        ValueError,
        "rel_pos_t must have shape (3, 4) for 2 queries and 2 keys along T, got (3, 8)",
    ),
    "table-rank": ({"rel_pos_w": zeros(11)}, ValueError, "rel_pos_w must have shape (11, 4) for 6 queries and 3 keys"),
    "table-int": (
        {"rel_pos_w": zeros(11, 4, dtype=torch.int64)},
        TypeError,
        f"rel_pos_w must be one of {TYPES}, got int64",
    ),
    "table-list": ({"rel_pos_w": [0.0]}, TypeError, "rel_pos_w must be a tensor, got list"),
    "table-device": (
        {"rel_pos_t": zeros(3, 4).to("meta")},
        ValueError,
        "rel_pos_t must be on the device of q, cpu, got meta",
    ),
}


@pytest.mark.parametrize("mistake", ATTENTION_MISTAKES)
def test_pooling_attention(mistake: str) -> None:
    wrong, error, message = ATTENTION_MISTAKES[mistake]
    tokens = {"q": zeros(2, 48, 8), "k": zeros(2, 12, 8), "v": zeros(2, 12, 8)}
    arguments = tokens | {"q_grid": GRID, "k_grid": KEYS, "num_heads": HEADS}
    ops.pooling_attention(**arguments)
    with pytest.raises(error, match=re.escape(message)):
        ops.pooling_attention(**(arguments | wrong))


@pytest.mark.every_device
@pytest.mark.requires_native
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": zeros(2, 47, 16)}, "tokens must have size 48 along dimension 1, got 47"),
        ({"x": zeros(48, 16)}, "x must have 3 dimensions"),
        ({"x": zeros(2, 48, 16, dtype=torch.int32)}, "tokens must be float32"),
        ({"grid": (2, 0, 24)}, "grid, kernel and stride must be at least 1"),
        ({"stride": (1, 0, 1)}, "grid, kernel and stride must be at least 1"),
        ({"num_heads": 3}, "num_heads must divide C"),
        ({"num_prefix": -1}, "num_prefix must be at least 0"),
        ({"mode": 4}, "mode is unknown"),
        ({"mode": 2}, "weight must fit the mode"),
        ({"weight": None}, "weight must fit the mode"),
        ({"weight": zeros(8, 1, 3, 3, 2)}, "weight must have size 3 along dimension 4, got 2"),
        ({"weight": zeros(8, 1, 3, 3, 3).bfloat16()}, "weight has the wrong dtype"),
        ({"norm_weight": zeros(8)}, "a norm has weight and bias"),
        ({"norm_weight": zeros(8), "norm_bias": zeros(7)}, "norm_bias must have size 8"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_the_operator_of_pool_tokens_guards_memory_by_itself(changed: dict[str, Any], message: str) -> None:
    arguments = {
        "x": zeros(2, 48, 16),
        "weight": zeros(8, 1, 3, 3, 3),
        "norm_weight": None,
        "norm_bias": None,
        "grid": GRID,
        "num_heads": HEADS,
        "num_prefix": 0,
        "mode": 0,
        "kernel": KERNEL,
        "stride": (1, 1, 1),
        "eps": 1e-6,
    }
    rejects(torch.ops.vtfast.pool_tokens.default, arguments, changed, message)


@pytest.mark.every_device
@pytest.mark.requires_native
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"q": zeros(2, 47, 16)}, "q must have size 48 along dimension 1, got 47"),
        ({"k": zeros(2, 48, 16)}, "k must have size 12 along dimension 1, got 48"),
        ({"v": zeros(2, 12, 8)}, "v must have size 16 along dimension 2, got 8"),
        ({"v": zeros(1, 12, 16)}, "v must have size 2 along dimension 0, got 1"),
        ({"k": zeros(2, 12, 16).bfloat16()}, "k has the wrong dtype"),
        ({"q_grid": (2, 4, 0)}, "grids must be at least 1"),
        ({"num_heads": 3}, "num_heads must divide C"),
        ({"num_prefix": -1}, "num_prefix must be at least 0"),
        ({"rel_pos_h": zeros(6, 8)}, "rel_pos must have size 7 along dimension 0, got 6"),
        ({"rel_pos_w": zeros(11, 8).half()}, "rel_pos has the wrong dtype"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_the_operator_of_pooling_attention_guards_memory_by_itself(changed: dict[str, Any], message: str) -> None:
    arguments = {
        "q": zeros(2, 48, 16),
        "k": zeros(2, 12, 16),
        "v": zeros(2, 12, 16),
        "rel_pos_t": None,
        "rel_pos_h": zeros(7, 8),
        "rel_pos_w": None,
        "q_grid": GRID,
        "k_grid": KEYS,
        "num_heads": HEADS,
        "num_prefix": 0,
        "residual": False,
        "residual_prefix": False,
        "scale": 1.0,
    }
    rejects(torch.ops.vtfast.pooling_attention.default, arguments, changed, message)
