"""Problems of pooling attention for kernel_check.py."""

from typing import Any

import torch
from kernel_check import Operation, Problem, largest, normal, place

from vtfast import ops, reference

Triple = tuple[int, int, int]
AXES = "thw"


def make_pooling_attention(
    q_grid: Triple,
    k_grid: Triple,
    *,
    dtype: torch.dtype = torch.float32,
    table_dtype: torch.dtype | None = None,
    batch: int = 2,
    num_heads: int = 2,
    head_dim: int = 8,
    num_prefix: int = 1,
    rel_pos: str = AXES,
    logits: float = 1.0,
    **settings: Any,
) -> Problem:
    """Normal q, k, v, tables and gradient on DEVICE; `rel_pos` names the axes that have a table.

    `logits` is the standard deviation of scale * q k^T, and of the score of each relative position.
    """
    generator, channels = torch.Generator().manual_seed(0), num_heads * head_dim
    sizes = [num_prefix + torch.Size(grid).numel() for grid in (q_grid, k_grid)]
    q = normal(generator, batch, sizes[0], channels)
    k, v = (normal(generator, batch, sizes[1], channels) for _ in range(2))
    leaves = {"q": place(q, dtype), "k": place(k * logits, dtype), "v": place(v, dtype)}
    for axis, name in enumerate(AXES):
        table = normal(generator, 2 * max(q_grid[axis], k_grid[axis]) - 1, head_dim) * head_dim**-0.5 * logits
        if name in rel_pos:
            leaves[f"rel_pos_{name}"] = place(table, table_dtype or dtype)
    return Problem(
        POOLING_ATTENTION,
        leaves,
        {"q_grid": q_grid, "k_grid": k_grid, "num_heads": num_heads, "num_prefix": num_prefix, **settings},
        (place(normal(generator, batch, sizes[0], channels), dtype),),
        head_dim,
    )


def _terms(problem: Problem) -> dict[str, float]:
    """Size of what is summed for an element of each result, were no terms to cancel but by chance.

    A score s is known to eps * s at best, so every probability p to that relative accuracy. The terms of the gradients
    are p (dp - delta) with dp = <grad_out, v>, and a row of them, of total weight 1, exists for every query.
    """
    names = ("out0", *(f"d_{name}" for name in problem.leaves))
    if problem.tokens.numel() == 0:
        return dict.fromkeys(names, 0.0)
    head_dim = problem.head_dim
    scale = problem.settings.get("scale")
    scale = abs(head_dim**-0.5 if scale is None else scale)

    def longest(tensor: torch.Tensor) -> float:
        return largest(tensor.double().nan_to_num(0, 0, 0).unflatten(-1, (-1, head_dim)).norm(dim=-1))

    q, k, v = (longest(problem.leaves[name]) for name in "qkv")
    grad, tables = longest(problem.grads_out[0]), [longest(problem.leaves[n]) for n in problem.leaves if n[0] == "r"]
    # Vectors of norm a and b that know nothing of each other have a product of about a * b / sqrt(head_dim).
    relative = 1 + (scale * q * k + q * sum(tables)) * head_dim**-0.5
    dp = grad * v * head_dim**-0.5
    rows = problem.tokens.shape[0] * problem.tokens.shape[1] * problem.settings["num_heads"]
    share = max(1.0, problem.tokens.shape[1] / problem.leaves["k"].shape[1]) ** 0.5  # queries a key has more than 1
    terms = {
        "out0": relative * largest(problem.leaves["v"]) + largest(problem.tokens),
        "d_q": relative * dp * max(scale * k, *tables, 0.0) + largest(problem.grads_out[0]),
        "d_k": share * relative * scale * dp * q,
        "d_v": share * relative * grad,
    }
    return terms | dict.fromkeys(names[4:], relative * rows**0.5 * dp * q)


POOLING_ATTENTION = Operation(
    "pooling_attention",
    ops.pooling_attention,
    reference.pooling_attention,
    _terms,
    ("q", "k", "v"),
    largest_head_dim=128,
)
