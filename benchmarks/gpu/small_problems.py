"""Attention of every kind on a handful of tokens, for tools under which a kernel is slow: forward, backward, compared.

`python -m benchmarks.gpu.small_problems DEVICE`. Inputs are made and results compared on the host, so that the device
runs little but vtfast's kernels.
"""

import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

import vtfast
from vtfast import ops, reference

_TOLERANCES = {torch.bfloat16: 5e-2, torch.float32: 1e-4, torch.float16: 1e-2}


def problems() -> Iterator[tuple[str, dict[str, Any], int]]:
    """Name, arguments of `ops.grid_attention` but tensors, and head_dim; the ones that take longest come last."""
    windows: dict[str, Any] = {"grid": (2, 9, 10), "block": (2, 4, 5), "num_heads": 2}
    yield "shifted and padded windows", windows | {"shift": (1, 2, 2)}, 32
    for head_dim in (16, 32, 64, 96, 128):
        yield f"windows, head_dim {head_dim}", windows, head_dim
    yield "windows of one frame", {"grid": (2, 14, 14), "block": (1, 7, 7), "shift": (0, 3, 3), "num_heads": 2}, 32
    yield "strided groups", {"grid": (2, 8, 8), "block": (2, 4, 4), "dilation": (1, 2, 2), "num_heads": 2}, 32
    for queries in ("none", "global", "mean"):
        time = {"grid": (8, 4, 4), "block": (8, 1, 1), "num_heads": 2, "num_prefix": 1, "prefix_queries": queries}
        yield f"time, prefix {queries}", time, 64
    yield "long windows", {"grid": (8, 7, 14), "block": (8, 7, 7), "shift": (0, 0, 3), "num_heads": 1}, 32
    yield "all tokens", {"grid": (4, 14, 14), "block": (4, 14, 14), "num_heads": 1}, 64


def main(device: str) -> int:
    """0 if every result is near that of the reference in float64."""
    wrong = 0
    for name, settings, head_dim in problems():
        for dtype, tolerance in _TOLERANCES.items():
            for bias in (True, False):
                error = _error(settings, head_dim, dtype, bias, device)
                good = error <= tolerance
                wrong += not good
                title = f"{name}, {str(dtype).removeprefix('torch.')}{', bias' if bias else ''}"
                print(f"{title}: error {error:.1e}{'' if good else ' WRONG'}", flush=True)
    print(f"{wrong} wrong")
    return 1 if wrong else 0


def _error(settings: dict[str, Any], head_dim: int, dtype: torch.dtype, bias: bool, device: str) -> float:
    """Largest error of output and gradients, as a share of the largest value; NaN where one is not finite."""
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator)

    grid, block, heads = settings["grid"], settings["block"], settings["num_heads"]
    channels, prefix = heads * head_dim, settings.get("num_prefix", 0)
    tokens = grid[0] * grid[1] * grid[2]
    rows = (2 * block[0] - 1) * (2 * block[1] - 1) * (2 * block[2] - 1)
    leaves = {"qkv": normal(2, prefix + tokens, 3 * channels).to(dtype), "pad_qkv": normal(3 * channels).to(dtype)}
    if bias:
        leaves["bias_table"] = normal(rows, heads)
    out_tokens = tokens + (prefix if settings.get("prefix_queries", "none") != "none" else 0)
    grad_out = normal(2, out_tokens, channels).to(dtype)
    key_mask = torch.rand(2, tokens, generator=generator) > 0.2 if prefix else None

    def results(attention: Any, device: str, dtype: torch.dtype | None) -> list[Tensor]:
        placed = {name: x.to(device, dtype or x.dtype).requires_grad_() for name, x in leaves.items()}
        mask = None if key_mask is None else key_mask.to(device)
        out = attention(**placed, **settings, key_mask=mask)
        grads = torch.autograd.grad(
            out, list(placed.values()), grad_out.to(device, out.dtype), materialize_grads=True, allow_unused=True
        )
        return [x.detach().double().cpu() for x in (out, *grads)]

    with vtfast.use_backend("native"):
        found = results(ops.grid_attention, device, None)
    exact = results(reference.grid_attention, "cpu", torch.float64)
    errors = [(x - y).abs().max() / y.abs().max().clamp_min(1e-6) for x, y in zip(found, exact, strict=True)]
    return float(torch.stack(errors).max())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
