"""Problems of rotary embedding."""

import torch

from vtfast import ops, reference
from vtfast.check.problems.problem import Operation, Problem, Triple, largest, normal, volume


def make_rotary(
    grid: Triple = (2, 3, 4),
    *,
    axes: tuple[bool, bool, bool] = (True, True, True),
    head_dim: int = 8,
    rotated: int | None = None,
    num_prefix: int = 1,
    num_heads: int = 2,
    batch: int = 2,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Problem:
    """Normal tensors; the tables are no rotation, each entry its own, and broadcast along axes not in `axes`."""
    generator = torch.Generator().manual_seed(seed)
    size = (batch, num_prefix + volume(grid), 3 * num_heads * head_dim)
    qkv, grad_out = (normal(generator, *size).to(device, dtype) for _ in range(2))
    shape = [size if own else 1 for size, own in zip(grid, axes, strict=True)]
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    cos, sin = (normal(generator, *shape, rotated or head_dim).to(device, acc) for _ in range(2))
    settings = {"grid": grid, "cos": cos, "sin": sin, "num_heads": num_heads, "num_prefix": num_prefix}
    return Problem(ROTARY, {"qkv": qkv}, settings, (grad_out,), head_dim)


def _terms(problem: Problem) -> dict[str, float]:
    factors = largest(problem.settings["cos"]) + largest(problem.settings["sin"])
    return {"out0": largest(problem.tokens) * factors, "d_qkv": largest(problem.grads_out[0]) * factors}


ROTARY = Operation("rotary_embedding", ops.rotary_embedding, reference.rotary_embedding, _terms, ("qkv",))
