"""Every mistake in a call has an error of its own that names the argument, what was wanted and what came."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from target import DEVICE

from vtfast import ops

GRID, BLOCK, HEADS, CHANNELS = (2, 4, 6), (2, 2, 3), 2, 8
TABLE = torch.zeros(3 * 3 * 5, HEADS)


def tokens(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(shape or (2, 48, 3 * CHANNELS), dtype=dtype)


MISTAKES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "qkv-array": ({"qkv": np.zeros((2, 48, 24))}, TypeError, "qkv must be a tensor, got ndarray"),
    "qkv-int": (
        {"qkv": tokens(2, 48, 24, dtype=torch.int64)},
        TypeError,
        "qkv must be one of float32, bfloat16, float16, float64, got int64",
    ),
    "qkv-uint8": ({"qkv": tokens(2, 48, 24, dtype=torch.uint8)}, TypeError, "got uint8"),
    "qkv-float8": ({"qkv": tokens(2, 48, 24, dtype=torch.float8_e4m3fn)}, TypeError, "got float8_e4m3fn"),
    "qkv-complex": ({"qkv": tokens(2, 48, 24, dtype=torch.complex64)}, TypeError, "got complex64"),
    "qkv-bool": ({"qkv": tokens(2, 48, 24, dtype=torch.bool)}, TypeError, "got bool"),
    "qkv-sparse": ({"qkv": tokens().to_sparse()}, TypeError, "qkv must be a dense tensor, got layout torch.sparse_coo"),
    "qkv-2d": (
        {"qkv": tokens(48, 24)},
        ValueError,
        "qkv must be [B, 48, 3*C] (num_prefix + T*H*W tokens) or [B, T, H, W, 3*C], got shape (48, 24)",
    ),
    "qkv-4d": ({"qkv": tokens(2, 2, 24, 24)}, ValueError, "got shape (2, 2, 24, 24)"),
    "qkv-token-count": ({"qkv": tokens(2, 47, 24)}, ValueError, "got shape (2, 47, 24)"),
    "qkv-other-grid": (
        {"qkv": tokens(2, 2, 6, 4, 24)},
        ValueError,
        "qkv must be [B, T, H, W, 3*C] with (T, H, W) = grid = (2, 4, 6), got shape (2, 2, 6, 4, 24)",
    ),
    "qkv-without-channels": ({"qkv": tokens(2, 48, 0)}, ValueError, "qkv's last dimension 0"),
    "heads-zero": ({"num_heads": 0}, ValueError, "num_heads must be an int of at least 1, got 0"),
    "heads-float": ({"num_heads": 2.0}, ValueError, "num_heads must be an int of at least 1, got 2.0"),
    "heads-bool": ({"num_heads": True}, ValueError, "num_heads must be an int of at least 1, got True"),
    "heads-odd": (
        {"num_heads": 3},
        ValueError,
        "num_heads must divide C, a third of qkv's last dimension 24, got 3",
    ),
    "heads-no-third": ({"qkv": tokens(2, 48, 25)}, ValueError, "num_heads must divide C"),
    "grid-zero": ({"grid": (0, 4, 6)}, ValueError, "grid must be an int or three ints"),
    "grid-pair": ({"grid": (4, 6)}, TypeError, "grid must be an int or three ints (T, H, W), each at least 1"),
    "block-zero": (
        {"block": (0, 2, 3)},
        ValueError,
        "block must be an int or three ints (T, H, W), each at least 1, got (0, 2, 3)",
    ),
    "block-negative": ({"block": -1}, ValueError, "block must be an int or three ints"),
    "block-float": ({"block": (2.0, 2, 3)}, TypeError, "block must be an int or three ints"),
    "block-text": ({"block": "2"}, TypeError, "block must be an int or three ints"),
    "dilation-zero": ({"dilation": (1, 0, 1)}, ValueError, "dilation must be an int or three ints"),
    "shift-negative": (
        {"shift": (0, -1, 0)},
        ValueError,
        "shift must be an int or three ints (T, H, W), each at least 0, got (0, -1, 0)",
    ),
    "shift-of-a-block": (
        {"shift": (0, 0, 3)},
        ValueError,
        "shift must be smaller than block * dilation = 3 along W, got 3",
    ),
    "shift-of-a-span": (
        {"shift": (0, 4, 0), "dilation": (1, 2, 1)},
        ValueError,
        "shift must be smaller than block * dilation = 4 along H, got 4",
    ),
    "table-length": (
        {"bias_table": torch.zeros(44, HEADS)},
        ValueError,
        "bias_table must have shape (45, 2) for window (2, 2, 3) and num_heads 2, got (44, 2)",
    ),
    "table-heads": ({"bias_table": torch.zeros(45, 3)}, ValueError, "bias_table must have shape (45, 2)"),
    "table-rank": ({"bias_table": torch.zeros(45)}, ValueError, "bias_table must have shape (45, 2)"),
    "table-int": ({"bias_table": TABLE.int()}, TypeError, "bias_table must be one of float32"),
    "table-device": (
        {"bias_table": TABLE.to("meta")},
        ValueError,
        "bias_table must be on the device of qkv, cpu, got meta",
    ),
    "bias-window-small": (
        {"bias_table": TABLE, "bias_window": (2, 1, 3)},
        ValueError,
        "bias_window must be at least block = 2 along H, got 1",
    ),
    "bias-window-pair": ({"bias_window": (2, 2)}, TypeError, "bias_window must be an int or three ints"),
    "bias-order": ({"bias_order": "blocks"}, ValueError, "bias_order must be one of block, window, got 'blocks'"),
    "pad-shape": ({"pad_qkv": torch.zeros(8)}, ValueError, "pad_qkv must have shape (24,), got (8,)"),
    "pad-rank": ({"pad_qkv": torch.zeros(1, 24)}, ValueError, "pad_qkv must have shape (24,), got (1, 24)"),
    "pad-int": ({"pad_qkv": torch.zeros(24, dtype=torch.int32)}, TypeError, "pad_qkv must be one of float32"),
    "pad-list": ({"pad_qkv": [0.0] * 24}, TypeError, "pad_qkv must be a tensor, got list"),
    "pad-device": ({"pad_qkv": torch.zeros(24, device="meta")}, ValueError, "pad_qkv must be on the device of qkv"),
    "mask-float": (
        {"key_mask": torch.ones(2, 48)},
        TypeError,
        "key_mask must be a bool tensor, got torch.float32",
    ),
    "mask-list": ({"key_mask": [True]}, TypeError, "key_mask must be a bool tensor, got list"),
    "mask-shape": (
        {"key_mask": torch.ones(2, 47, dtype=torch.bool)},
        ValueError,
        "key_mask must have shape (2, 48) or (2, 2, 4, 6), got (2, 47)",
    ),
    "mask-batch": ({"key_mask": torch.ones(1, 48, dtype=torch.bool)}, ValueError, "key_mask must have shape (2, 48)"),
    "mask-device": (
        {"key_mask": torch.ones(2, 48, dtype=torch.bool, device="meta")},
        ValueError,
        "key_mask must be on the device of qkv, cpu, got meta",
    ),
    "prefix-negative": ({"num_prefix": -1}, ValueError, "num_prefix must be an int of at least 0, got -1"),
    "prefix-float": ({"num_prefix": 1.0}, ValueError, "num_prefix must be an int of at least 0, got 1.0"),
    "prefix-missing": (
        {"num_prefix": 1},
        ValueError,
        "qkv must be [B, 49, 3*C] (num_prefix + T*H*W tokens), got shape (2, 48, 24)",
    ),
    "prefix-in-a-volume": (
        {"num_prefix": 1, "qkv": tokens(2, 2, 4, 6, 24)},
        ValueError,
        "qkv must be [B, 49, 3*C] (num_prefix + T*H*W tokens), got shape (2, 2, 4, 6, 24)",
    ),
    "prefix-queries": (
        {"prefix_queries": "all"},
        ValueError,
        "prefix_queries must be one of none, global, mean, got 'all'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_grid_attention(mistake: str) -> None:
    wrong, error, message = MISTAKES[mistake]
    arguments = {"qkv": tokens(), "grid": GRID, "num_heads": HEADS, "block": BLOCK}
    ops.grid_attention(**arguments)
    with pytest.raises(error, match=re.escape(message)):
        ops.grid_attention(**(arguments | wrong))


WINDOW_MISTAKES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "qkv-3d": ({"qkv": tokens()}, ValueError, "qkv must be [B, T, H, W, 3*C], got shape (2, 48, 24)"),
    "qkv-array": ({"qkv": np.zeros((2, 2, 4, 6, 24))}, ValueError, "qkv must be [B, T, H, W, 3*C], got ndarray"),
    "qkv-int": ({"qkv": tokens(2, 2, 4, 6, 24, dtype=torch.int32)}, TypeError, "got int32"),
    "window-zero": (
        {"window": (0, 7, 7)},
        ValueError,
        "window must be an int or three ints (T, H, W), each at least 1, got (0, 7, 7)",
    ),
    "shift-of-a-window": (
        {"shift": (2, 0, 0)},
        ValueError,
        "shift must be smaller than window = (2, 2, 3), got (2, 0, 0)",
    ),
    "shift-negative": ({"shift": -1}, ValueError, "shift must be an int or three ints"),
    "heads": ({"num_heads": 3}, ValueError, "num_heads must divide C"),
    "table": ({"bias_table": torch.zeros(44, HEADS)}, ValueError, "bias_table must have shape (45, 2)"),
    "shrunk-bias": (
        {"shrunk_bias": "right"},
        ValueError,
        "shrunk_bias must be one of upstream, corrected, got 'right'",
    ),
}


@pytest.mark.parametrize("mistake", WINDOW_MISTAKES)
def test_window_attention(mistake: str) -> None:
    wrong, error, message = WINDOW_MISTAKES[mistake]
    arguments = {"qkv": tokens(2, 2, 4, 6, 24), "num_heads": HEADS, "window": BLOCK}
    ops.window_attention(**arguments)
    with pytest.raises(error, match=re.escape(message)):
        ops.window_attention(**(arguments | wrong))


FRAME_MASK = torch.ones(2, 2, dtype=torch.bool)
ROTARY_TABLE = torch.ones(2, 1, 1, 4)
PREFIX_MISSING = "qkv must be [B, 49, 3*C] (num_prefix + T*H*W tokens), got shape (2, 48, 24)"

DIVIDED_MISTAKES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "scheme": (
        {"scheme": "frames"},
        ValueError,
        "scheme must be one of time, space, joint, width, height, local, global, got 'frames'",
    ),
    "scheme-none": ({"scheme": None}, ValueError, "scheme must be one of"),
    "semantics": (
        {"semantics": "facebook"},
        ValueError,
        "semantics must be one of official, lucidrains, got 'facebook'",
    ),
    "grid": ({"grid": (2, 0, 6)}, ValueError, "grid must be an int or three ints"),
    "qkv-array": ({"qkv": np.zeros((2, 48, 24))}, TypeError, "qkv must be a tensor, got ndarray"),
    "qkv-array-and-mask": (
        {"qkv": np.zeros((2, 48, 24)), "frame_mask": FRAME_MASK},
        TypeError,
        "qkv must be a tensor, got ndarray",
    ),
    "qkv-int": ({"qkv": tokens(2, 48, 24, dtype=torch.int64)}, TypeError, "qkv must be one of float32"),
    "heads": ({"num_heads": 3}, ValueError, "num_heads must divide C"),
    "prefix-float": ({"num_prefix": 1.0}, ValueError, "num_prefix must be an int of at least 0, got 1.0"),
    "prefix-missing": ({"num_prefix": 1}, ValueError, PREFIX_MISSING),
    "prefix-missing-and-mask": (
        {"num_prefix": 1, "scheme": "space", "frame_mask": FRAME_MASK},
        ValueError,
        PREFIX_MISSING,
    ),
    "prefix-missing-and-rotary": (
        {"num_prefix": 1, "rotary": (ROTARY_TABLE, ROTARY_TABLE)},
        ValueError,
        PREFIX_MISSING,
    ),
    "mask-float": (
        {"frame_mask": FRAME_MASK.float()},
        TypeError,
        "frame_mask must be a bool tensor, got torch.float32",
    ),
    "mask-list": ({"frame_mask": [[True, True]] * 2}, TypeError, "frame_mask must be a bool tensor, got list"),
    "mask-of-tokens": (
        {"frame_mask": torch.ones(2, 48, dtype=torch.bool)},
        ValueError,
        "frame_mask must have shape (2, 2), got (2, 48)",
    ),
    "mask-batch": ({"frame_mask": FRAME_MASK[:1]}, ValueError, "frame_mask must have shape (2, 2), got (1, 2)"),
    "mask-rank": ({"frame_mask": FRAME_MASK[0]}, ValueError, "frame_mask must have shape (2, 2), got (2,)"),
    "mask-device": (
        {"frame_mask": FRAME_MASK.to("meta")},
        ValueError,
        "frame_mask must be on the device of qkv, cpu, got meta",
    ),
    **{
        f"mask-{scheme}": (
            {"frame_mask": FRAME_MASK, "scheme": scheme},
            ValueError,
            f"frame_mask goes with the schemes time, space and joint, got scheme '{scheme}'",
        )
        for scheme in ("width", "height", "local", "global")
    },
    "rotary-tensor": ({"rotary": ROTARY_TABLE}, TypeError, "rotary must be a pair (cos, sin), got Tensor"),
    "rotary-one": ({"rotary": (ROTARY_TABLE,)}, TypeError, "rotary must be a pair (cos, sin), got 1 values"),
}


@pytest.mark.parametrize("semantics", ["official", "lucidrains"])
@pytest.mark.parametrize("mistake", DIVIDED_MISTAKES)
def test_divided_attention(mistake: str, semantics: str) -> None:
    wrong, error, message = DIVIDED_MISTAKES[mistake]
    arguments = {"qkv": tokens(), "grid": GRID, "num_heads": HEADS, "scheme": "time", "semantics": semantics}
    ops.divided_attention(**arguments)
    with pytest.raises(error, match=re.escape(message)):
        ops.divided_attention(**(arguments | wrong))


def test_the_axis_of_axial_attention() -> None:
    with pytest.raises(ValueError, match="axis must be one of time, height, width, got 'depth'"):
        ops.axial_attention(tokens(), GRID, axis="depth", num_heads=HEADS)


@pytest.mark.every_device
@pytest.mark.requires_native
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"block": (0, 2, 3)}, "must be positive"),
        ({"shift": (0, 2, 0)}, "shift must be smaller"),
        ({"num_heads": 3}, "num_heads must divide C"),
        ({"bias_table": TABLE[:-1, :1]}, "bias_table must have size 45 along dimension 0, got 44"),
        ({"bias_table": TABLE[:, :1].double()}, "bias_table has the wrong dtype"),
        ({"pad_qkv": torch.zeros(23)}, "pad_qkv must have size 24"),
        ({"key_mask": torch.ones(2, 47, dtype=torch.bool)}, "key_mask must have size 48"),
        ({"qkv": tokens(2, 40, 24)}, "qkv must have size 48 along dimension 1, got 40"),
        ({"qkv": tokens(2, 48, 24, dtype=torch.int32)}, "qkv must be float32"),
        ({"prefix_queries": 3}, "bad prefix settings"),
        ({"num_prefix": -1}, "bad prefix settings"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_the_registered_operator_guards_memory_by_itself(changed: dict[str, Any], message: str) -> None:
    arguments = {
        "qkv": tokens(),
        "bias_table": None,
        "pad_qkv": None,
        "key_mask": None,
        "grid": GRID,
        "num_heads": 1,
        "block": BLOCK,
        "dilation": (1, 1, 1),
        "shift": (0, 0, 0),
        "bias_window": BLOCK,
        "bias_by_window": False,
        "pad_keys": True,
        "num_prefix": 0,
        "prefix_keys": True,
        "prefix_queries": 0,
        "scale": 1.0,
    }

    def call(**arguments: Any) -> None:
        moved = {name: v.to(DEVICE) if isinstance(v, torch.Tensor) else v for name, v in arguments.items()}
        torch.ops.vtfast.grid_attention.default(**moved)

    call(**arguments)
    with pytest.raises(RuntimeError, match=message):
        call(**(arguments | changed))
