"""Every mistake in a call of `depthwise_conv3d` has an error that names the argument, and what was wanted."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from operator_guards import rejects
from torch import Tensor

from vtfast import ops


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


X, WEIGHT, BIAS = zeros(2, 2, 4, 6, 8), zeros(8, 1, 3, 3, 3), zeros(8)
TYPES = "float32, bfloat16, float16, float64"

MISTAKES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "array": ({"x": np.zeros(X.shape)}, TypeError, "x must be a tensor, got ndarray"),
    "int": ({"x": X.long()}, TypeError, f"x must be one of {TYPES}, got int64"),
    "sparse": ({"x": X.to_sparse()}, TypeError, "x must be a dense tensor, got layout torch.sparse_coo"),
    "flat": (
        {"x": zeros(2, 48, 8)},
        ValueError,
        "x must be [B, T, H, W, C] with no empty dimension but B, got shape (2, 48, 8)",
    ),
    "without-frames": ({"x": zeros(2, 0, 4, 6, 8)}, ValueError, "no empty dimension but B, got shape (2, 0, 4, 6, 8)"),
    "without-channels": ({"x": zeros(2, 2, 4, 6, 0)}, ValueError, "no empty dimension but B"),
    "volume": (
        {"x": zeros(2, 8, 2, 4, 6)},
        ValueError,
        "weight must be [6, 1, kt, kh, kw], got shape (8, 1, 3, 3, 3)",
    ),
    "weight-none": ({"weight": None}, TypeError, "weight must be a tensor, got NoneType"),
    "weight-int": ({"weight": WEIGHT.int()}, TypeError, f"weight must be one of {TYPES}, got int32"),
    "weight-device": ({"weight": WEIGHT.to("meta")}, ValueError, "weight must be on the device of x, cpu, got meta"),
    "weight-dense": ({"weight": zeros(8, 8, 3, 3, 3)}, ValueError, "weight must be [8, 1, kt, kh, kw], got shape"),
    "weight-rank": ({"weight": zeros(8, 1, 3, 3)}, ValueError, "weight must be [8, 1, kt, kh, kw], got shape"),
    "weight-channels": ({"weight": zeros(4, 1, 3, 3, 3)}, ValueError, "weight must be [8, 1, kt, kh, kw], got shape"),
    "weight-empty": ({"weight": zeros(8, 1, 3, 0, 3)}, ValueError, "weight must be [8, 1, kt, kh, kw], got shape"),
    "bias-list": ({"bias": [0.0] * 8}, TypeError, "bias must be a tensor, got list"),
    "bias-shape": ({"bias": zeros(4)}, ValueError, "bias must have shape (8,), got (4,)"),
    "bias-rank": ({"bias": zeros(1, 8)}, ValueError, "bias must have shape (8,), got (1, 8)"),
    "bias-bool": ({"bias": BIAS.bool()}, TypeError, f"bias must be one of {TYPES}, got bool"),
    "bias-device": ({"bias": BIAS.to("meta")}, ValueError, "bias must be on the device of x, cpu, got meta"),
    "stride-zero": (
        {"stride": (1, 0, 1)},
        ValueError,
        "stride must be an int or three ints (T, H, W), each at least 1, got (1, 0, 1)",
    ),
    "stride-pair": ({"stride": (1, 1)}, TypeError, "stride must be an int or three ints (T, H, W), each at least 1"),
    "stride-float": ({"stride": 1.0}, TypeError, "stride must be an int or three ints (T, H, W), each at least 1"),
    "padding-negative": (
        {"padding": (0, -1, 0)},
        ValueError,
        "padding must be an int or three ints (T, H, W), each at least 0, got (0, -1, 0)",
    ),
    "padding-text": (
        {"padding": "same"},
        TypeError,
        "padding must be an int or three ints (T, H, W), each at least 0, got 'same'",
    ),
    "padding-small": (
        {"padding": 0},
        ValueError,
        "padding must make a grid of (2, 4, 6) at least as large as the kernel (3, 3, 3), got (0, 0, 0)",
    ),
    "residual-int": ({"residual": 1}, TypeError, "residual must be a bool, got 1"),
    "residual-stride": (
        {"residual": True, "stride": (1, 2, 2)},
        ValueError,
        "residual needs a convolution that keeps the grid (2, 4, 6), got kernel (3, 3, 3), stride (1, 2, 2) "
        "and padding (1, 1, 1)",
    ),
    "residual-padding": ({"residual": True, "padding": 2}, ValueError, "residual needs a convolution that keeps"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_depthwise_conv3d(mistake: str) -> None:
    wrong, error, message = MISTAKES[mistake]
    arguments = {"x": X, "weight": WEIGHT, "bias": BIAS}
    with pytest.raises(error, match=re.escape(message)):
        ops.depthwise_conv3d(**(arguments | wrong))


OUT = zeros(2, 2, 4, 6, 8)


@pytest.mark.every_device
@pytest.mark.requires_native
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": zeros(2, 48, 8)}, "x must have 5 dimensions, got 3"),
        ({"x": X.int()}, "x must be float32, bfloat16, float16 or float64"),
        ({"x": zeros(2, 0, 4, 6, 8)}, "grid, kernel and stride must be at least 1"),
        ({"x": zeros(2, 2, 4, 6, 16)}, "weight must have size 16 along dimension 0, got 8"),
        ({"weight": zeros(8, 27)}, "weight must have 5 dimensions, got 2"),
        ({"weight": zeros(8, 2, 3, 3, 3)}, "weight must have size 1 along dimension 1, got 2"),
        ({"weight": WEIGHT.bfloat16()}, "weight has the wrong dtype"),
        ({"bias": zeros(7)}, "bias must have size 8 along dimension 0, got 7"),
        ({"bias": BIAS.bfloat16()}, "bias has the wrong dtype"),
        ({"stride": (1, 0, 1)}, "grid, kernel and stride must be at least 1"),
        ({"padding": (1, -1, 1)}, "padding must make the grid as large as the kernel"),
        ({"padding": (0, 1, 1)}, "padding must make the grid as large as the kernel"),
        ({"stride": (1, 2, 2), "residual": True}, "residual needs a convolution that keeps the grid"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_the_operator_guards_memory_by_itself(changed: dict[str, Any], message: str) -> None:
    arguments = {"x": X, "weight": WEIGHT, "bias": BIAS, "stride": (1, 1, 1), "padding": (1, 1, 1), "residual": False}
    rejects(torch.ops.vtfast.depthwise_conv3d.default, arguments, changed, message)


@pytest.mark.every_device
@pytest.mark.requires_native
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"grad_out": zeros(2, 2, 4, 5, 8)}, "grad_out must have size 6 along dimension 3, got 5"),
        ({"grad_out": zeros(1, 2, 4, 6, 8)}, "grad_out must have size 2 along dimension 0, got 1"),
        ({"grad_out": OUT.bfloat16()}, "grad_out has the wrong dtype"),
        ({"x": zeros(2, 48, 8)}, "x must have 5 dimensions, got 3"),
        ({"weight": WEIGHT.half()}, "weight has the wrong dtype"),
        ({"wanted": [True, True]}, "wanted must have three elements"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_the_operator_of_the_gradients_guards_memory_by_itself(changed: dict[str, Any], message: str) -> None:
    shared = {"x": X, "weight": WEIGHT, "stride": (1, 1, 1), "padding": (1, 1, 1), "residual": False}
    arguments = {"grad_out": OUT, "wanted": [True, True, True], **shared}
    rejects(torch.ops.vtfast.depthwise_conv3d_backward.default, arguments, changed, message)
