"""Problems of depthwise convolution."""

from typing import Any

import torch

from vtfast import ops, reference
from vtfast.check.problems.problem import Operation, Problem, Triple, largest, normal, volume
from vtfast.reference import convolved_grid


def make_depthwise(
    grid: Triple,
    kernel: Triple,
    *,
    stride: Triple = (1, 1, 1),
    padding: Triple | None = None,
    channels: int = 16,
    batch: int = 2,
    bias: bool = True,
    residual: bool = False,
    dtype: torch.dtype = torch.float32,
    parameter_dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Problem:
    """Normal tokens and gradient; the weight keeps the scale of what it sums up."""
    generator = torch.Generator().manual_seed(seed)
    half = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    out_grid = convolved_grid(grid, kernel, stride, half if padding is None else padding)
    leaves = {
        "x": normal(generator, batch, *grid, channels).to(device, dtype),
        "weight": normal(generator, channels, 1, *kernel) * volume(kernel) ** -0.5,
        "bias": normal(generator, channels),
    }
    for name in ("weight", "bias"):
        leaves[name] = leaves[name].to(device, parameter_dtype or dtype)
    if not bias:
        del leaves["bias"]
    settings: dict[str, Any] = {"stride": stride, "padding": padding, "residual": residual}
    grad_out = normal(generator, batch, *out_grid, channels).to(device, dtype)
    return Problem(DEPTHWISE, leaves, settings, (grad_out,), head_dim=channels)


def _terms(problem: Problem) -> dict[str, float]:
    """Size of what is summed for an element of each result, were no terms to cancel but by chance."""
    if problem.tokens.numel() == 0:
        return problem.zero_terms()
    x, weight, *bias = (tensor.double().nan_to_num(0, 0, 0).abs() for tensor in problem.leaves.values())
    grad = largest(problem.grads_out[0])
    rows = (problem.grads_out[0].numel() // x.shape[-1]) ** 0.5
    terms = {
        "out0": largest(reference.depthwise_conv3d(x, weight, *bias, **problem.settings)),
        "d_x": (weight.flatten(1).sum(1).max().item() + problem.settings["residual"]) * grad,
        "d_weight": rows * grad * largest(x),
    }
    return terms | {"d_bias": rows * grad} if bias else terms


DEPTHWISE = Operation("depthwise_conv3d", ops.depthwise_conv3d, reference.depthwise_conv3d, _terms, ("x",))
