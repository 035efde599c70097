"""Every operation on a handful of tokens, for tools under which a kernel is slow: forward, backward, compared.

`python -m benchmarks.gpu.small_problems DEVICE`. Inputs are made and results compared on the host, so that the device
runs little but vtfast's kernels.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import prod
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
    odd: dict[str, Any] = {"grid": (3, 7, 5), "num_prefix": 1, "prefix_queries": "mean", "pad_keys": False}
    yield "strided groups of odd sizes", odd | {"block": (2, 4, 3), "dilation": (2, 2, 2), "num_heads": 2}, 64
    yield "strided groups", {"grid": (2, 8, 8), "block": (2, 4, 4), "dilation": (1, 2, 2), "num_heads": 2}, 32
    for queries in ("none", "global", "mean"):
        time = {"grid": (8, 4, 4), "block": (8, 1, 1), "num_heads": 2, "num_prefix": 1, "prefix_queries": queries}
        yield f"time, prefix {queries}", time, 64
    cls = {"num_heads": 2, "num_prefix": 1}
    yield "time without cls", {"grid": (16, 3, 3), "block": (16, 1, 1), "prefix_keys": False} | cls, 64
    yield "space with cls", {"grid": (3, 7, 7), "block": (1, 7, 7), "prefix_queries": "mean"} | cls, 64
    yield "long windows", {"grid": (8, 7, 14), "block": (8, 7, 7), "shift": (0, 0, 3), "num_heads": 1}, 32
    yield "all tokens", {"grid": (4, 14, 14), "block": (4, 14, 14), "num_heads": 1}, 64


def rotary_problems() -> Iterator[tuple[str, dict[str, Any], tuple[int, int, int, int]]]:
    """Name, arguments of `ops.rotary_embedding` but tensors, and the tables' shape."""
    yield "rotary, time", {"grid": (8, 3, 4), "num_heads": 2, "num_prefix": 1}, (8, 1, 1, 64)
    yield "rotary, space", {"grid": (2, 5, 6), "num_heads": 3, "num_prefix": 1}, (1, 5, 6, 64)
    yield "rotary, part of a head", {"grid": (2, 3, 4), "num_heads": 2}, (2, 3, 4, 18)


def pooling_problems() -> Iterator[tuple[str, dict[str, Any], int]]:
    """Name, arguments of `ops.pooling_attention` but tensors, and head_dim."""
    cls = {"num_heads": 2, "num_prefix": 1, "residual": True}
    for head_dim in (32, 64, 96, 128):
        yield f"pooled keys, head_dim {head_dim}", cls | {"q_grid": (2, 6, 6), "k_grid": (2, 3, 3)}, head_dim
    yield "pooled queries", cls | {"q_grid": (2, 3, 4), "k_grid": (2, 6, 8)}, 96
    yield "grids that do not divide each other", cls | {"q_grid": (3, 7, 10), "k_grid": (2, 3, 4)}, 24
    yield "more positions than a tile has room for", cls | {"q_grid": (1, 1, 300), "k_grid": (1, 1, 80)}, 32


def token_problems() -> Iterator[tuple[str, dict[str, Any], int]]:
    """Name, arguments of `ops.pool_tokens` but tensors, and head_dim."""
    cls: dict[str, Any] = {"grid": (3, 9, 10), "num_heads": 2, "num_prefix": 1}
    for kernel, stride in (((3, 3, 3), 1), ((3, 3, 3), (1, 2, 2)), ((3, 3, 3), (1, 4, 4)), ((2, 5, 4), (2, 1, 3))):
        for mode in ("conv", "max"):
            name = f"{mode} pooling of {' x '.join(map(str, kernel))}, stride {stride}"
            yield name, cls | {"kernel": kernel, "stride": stride, "mode": mode}, 96
    yield "mean of 3 x 3 x 3", cls | {"kernel": 3, "stride": (1, 2, 2), "mode": "avg"}, 24
    yield "a window whose weights shared memory does not hold", cls | {"kernel": 7, "mode": "conv"}, 64


def convolution_problems() -> Iterator[tuple[str, dict[str, Any], tuple[int, int, int]]]:
    """Name, arguments of `ops.depthwise_conv3d` but tensors, and the kernel."""
    for kernel in ((3, 3, 3), (5, 5, 5), (3, 1, 1), (1, 3, 3)):
        yield f"depthwise {' x '.join(map(str, kernel))}", {"residual": True}, kernel
    yield "depthwise 3 x 3 x 3, unpadded", {"padding": (0, 0, 0)}, (3, 3, 3)
    yield "depthwise 3 x 3 x 3, strided", {"stride": (1, 2, 2)}, (3, 3, 3)
    yield "depthwise 7 x 7 x 7, whose weights shared memory does not hold", {"padding": (3, 1, 5)}, (7, 7, 7)


def main(device: str) -> int:
    """0 if every result is near that of the reference in float64."""
    wrong = 0
    for title, error_of in _cases(device):
        for dtype, tolerance in _TOLERANCES.items():
            error = error_of(dtype)
            good = error <= tolerance
            wrong += not good
            named = f"{title}, {str(dtype).removeprefix('torch.')}"
            print(f"{named}: error {error:.1e}{'' if good else ' WRONG'}", flush=True)
    print(f"{wrong} wrong")
    return 1 if wrong else 0


def _cases(device: str) -> Iterator[tuple[str, Callable[[torch.dtype], float]]]:
    for name, settings, shape in rotary_problems():
        yield name, partial(_rotary_error, settings, shape, device)
    for name, settings, kernel in convolution_problems():
        yield name, partial(_convolution_error, settings, kernel, device)
    for name, settings, head_dim in token_problems():
        for norm in (True, False):
            yield f"{name}{', norm' if norm else ''}", partial(_token_error, settings, head_dim, norm, device)
    for name, settings, head_dim in pooling_problems():
        for tables in ("thw", "h", ""):
            named = f"{name}, tables along {tables}" if tables else name
            yield named, partial(_pooling_error, settings, head_dim, tables, device)
    for name, settings, head_dim in problems():
        for bias in (True, False):
            yield f"{name}{', bias' if bias else ''}", partial(_attention_error, settings, head_dim, bias, device)


def _attention_error(settings: Mapping[str, Any], head_dim: int, bias: bool, device: str, dtype: torch.dtype) -> float:
    normal, grid, block, heads = _normal(), settings["grid"], settings["block"], settings["num_heads"]
    channels, prefix = heads * head_dim, settings.get("num_prefix", 0)
    tokens = grid[0] * grid[1] * grid[2]
    leaves = {"qkv": normal(2, prefix + tokens, 3 * channels).to(dtype)}
    if settings.get("pad_keys", True):
        leaves["pad_qkv"] = normal(3 * channels).to(dtype)
    if bias:
        rows = (2 * block[0] - 1) * (2 * block[1] - 1) * (2 * block[2] - 1)
        leaves["bias_table"] = normal(rows, heads)
    out_tokens = tokens + (prefix if settings.get("prefix_queries", "none") != "none" else 0)
    grad_out = normal(2, out_tokens, channels).to(dtype)
    fixed = {"key_mask": normal(2, tokens) > -0.8} if prefix else {}
    return _error(ops.grid_attention, reference.grid_attention, leaves, grad_out, fixed, settings, device)


def _pooling_error(settings: Mapping[str, Any], head_dim: int, tables: str, device: str, dtype: torch.dtype) -> float:
    normal, channels = _normal(), settings["num_heads"] * head_dim
    q_tokens, k_tokens = (settings.get("num_prefix", 0) + prod(settings[grid]) for grid in ("q_grid", "k_grid"))
    leaves = {"q": normal(2, q_tokens, channels).to(dtype)}
    leaves |= {name: normal(2, k_tokens, channels).to(dtype) for name in ("k", "v")}
    for axis, sizes in zip("thw", zip(settings["q_grid"], settings["k_grid"], strict=True), strict=True):
        if axis in tables:
            leaves[f"rel_pos_{axis}"] = normal(2 * max(sizes) - 1, head_dim) * head_dim**-0.5
    grad_out = normal(2, q_tokens, channels).to(dtype)
    return _error(ops.pooling_attention, reference.pooling_attention, leaves, grad_out, {}, settings, device)


def _token_error(settings: Mapping[str, Any], head_dim: int, norm: bool, device: str, dtype: torch.dtype) -> float:
    normal, channels = _normal(), settings["num_heads"] * head_dim
    kernel, stride = (
        (size,) * 3 if isinstance(size, int) else size for size in (settings["kernel"], settings.get("stride", 1))
    )
    leaves = {"x": normal(2, settings["num_prefix"] + prod(settings["grid"]), channels).to(dtype)}
    if settings["mode"] == "conv":
        leaves["weight"] = normal(head_dim, 1, *kernel) * prod(kernel) ** -0.5
    if norm:
        leaves |= {"norm_weight": 1 + 0.1 * normal(head_dim), "norm_bias": 0.1 * normal(head_dim)}
    pooled = reference.pooled_grid(settings["grid"], kernel, stride)
    grad_out = normal(2, settings["num_prefix"] + prod(pooled), channels).to(dtype)
    return _error(
        ops.pool_tokens,
        reference.pool_tokens,
        leaves,
        grad_out,
        {},
        settings | {"kernel": kernel, "stride": stride},
        device,
    )


def _convolution_error(
    settings: Mapping[str, Any], kernel: tuple[int, int, int], device: str, dtype: torch.dtype
) -> float:
    normal, channels, grid = _normal(), 72, (5, 9, 10)
    leaves = {
        "x": normal(2, *grid, channels).to(dtype),
        "weight": normal(channels, 1, *kernel) * prod(kernel) ** -0.5,
        "bias": normal(channels),
    }
    half = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    stride, padding = settings.get("stride", (1, 1, 1)), settings.get("padding", half)
    grad_out = normal(2, *reference.convolved_grid(grid, kernel, stride, padding), channels).to(dtype)
    return _error(ops.depthwise_conv3d, reference.depthwise_conv3d, leaves, grad_out, {}, settings, device)


def _rotary_error(
    settings: Mapping[str, Any], shape: tuple[int, int, int, int], device: str, dtype: torch.dtype
) -> float:
    normal, grid, channels = _normal(), settings["grid"], settings["num_heads"] * 64
    tokens = settings.get("num_prefix", 0) + grid[0] * grid[1] * grid[2]
    qkv, grad_out = (normal(2, tokens, 3 * channels).to(dtype) for _ in range(2))
    fixed = {"cos": normal(*shape), "sin": normal(*shape)}
    return _error(ops.rotary_embedding, reference.rotary_embedding, {"qkv": qkv}, grad_out, fixed, settings, device)


def _normal() -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(0)
    return lambda *size: torch.randn(size, generator=generator)


def _error(
    operation: Callable[..., Tensor],
    specification: Callable[..., Tensor],
    leaves: Mapping[str, Tensor],
    grad_out: Tensor,
    fixed: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    device: str,
) -> float:
    """Largest error of output and gradients, as a share of the largest value; NaN where one is not finite."""

    def results(function: Callable[..., Tensor], device: str, dtype: torch.dtype | None) -> list[Tensor]:
        placed = {name: x.to(device, dtype or x.dtype).requires_grad_() for name, x in leaves.items()}
        others = {name: x.to(device, dtype if x.is_floating_point() else None) for name, x in fixed.items()}
        out = function(**placed, **others, **settings)
        grads = torch.autograd.grad(
            out, list(placed.values()), grad_out.to(device, out.dtype), materialize_grads=True, allow_unused=True
        )
        return [x.detach().double().cpu() for x in (out, *grads)]

    with vtfast.use_backend("native"):
        found = results(operation, device, None)
    exact = results(specification, "cpu", torch.float64)
    errors = [(x - y).abs().max() / y.abs().max().clamp_min(1e-6) for x, y in zip(found, exact, strict=True)]
    return float(torch.stack(errors).max())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
