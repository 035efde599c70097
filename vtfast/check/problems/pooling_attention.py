"""Problems of pooling attention."""

from typing import Any

import torch

from vtfast import ops, reference
from vtfast.check.problems.problem import Operation, Problem, Triple, largest, normal, volume

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
    device: torch.device | str = "cpu",
    seed: int = 0,
    **settings: Any,
) -> Problem:
    """Normal q, k, v, tables and gradient; `rel_pos` names the axes that have a table.

    `logits` is the standard deviation of scale * q k^T, and of the score of each relative position.
    """
    generator, channels = torch.Generator().manual_seed(seed), num_heads * head_dim
    sizes = [num_prefix + volume(grid) for grid in (q_grid, k_grid)]
    q = normal(generator, batch, sizes[0], channels)
    k, v = (normal(generator, batch, sizes[1], channels) for _ in range(2))
    leaves = {name: x.to(device, dtype) for name, x in (("q", q), ("k", k * logits), ("v", v))}
    for axis, name in enumerate(AXES):
        table = normal(generator, 2 * max(q_grid[axis], k_grid[axis]) - 1, head_dim) * head_dim**-0.5 * logits
        if name in rel_pos:
            leaves[f"rel_pos_{name}"] = table.to(device, table_dtype or dtype)
    return Problem(
        POOLING_ATTENTION,
        leaves,
        {"q_grid": q_grid, "k_grid": k_grid, "num_heads": num_heads, "num_prefix": num_prefix, **settings},
        (normal(generator, batch, sizes[0], channels).to(device, dtype),),
        head_dim,
    )


def _terms(problem: Problem) -> dict[str, float]:
    """Size of what is summed for an element of each result, were no terms to cancel but by chance.

    A score s is known to eps * s at best, so every probability p to that relative accuracy. The terms of the gradients
    are p (dp - delta) with dp = <grad_out, v>, and a row of them, of total weight 1, exists for every query.
    """
    if problem.tokens.numel() == 0:
        return problem.zero_terms()
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
    tables_of = (f"d_{name}" for name in problem.leaves if name not in ("q", "k", "v"))
    return terms | dict.fromkeys(tables_of, relative * rows**0.5 * dp * q)


POOLING_ATTENTION = Operation(
    "pooling_attention",
    ops.pooling_attention,
    reference.pooling_attention,
    _terms,
    ("q", "k", "v"),
    largest_head_dim=128,
)
