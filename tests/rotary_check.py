"""Rotary embedding, kernel against reference: inputs of a problem, its result and gradient, and the comparison."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from target import DEVICE
from tolerance import BACKWARD, FORWARD, assert_as_accurate
from torch import Tensor

from vtfast import ops, reference, use_backend
from vtfast.check.problems.problem import Triple, largest
from vtfast.check.problems.rotary_embedding import make_rotary
from vtfast.testing.case import evaluate as evaluation


@dataclass
class Problem:
    """Tensors in the dtype to be tested; tables that are no rotation, each entry its own."""

    qkv: Tensor  # [B, P + T*H*W, 3*C] or [B, T, H, W, 3*C]
    cos: Tensor  # [T or 1, H or 1, W or 1, R]
    sin: Tensor  # [T or 1, H or 1, W or 1, R]
    grad_out: Tensor  # as qkv
    settings: dict[str, Any] = field(default_factory=dict)


def make_problem(
    grid: Triple = (2, 3, 4),
    *,
    axes: tuple[bool, bool, bool] = (True, True, True),
    head_dim: int = 8,
    rotated: int | None = None,
    num_prefix: int = 1,
    num_heads: int = 2,
    batch: int = 2,
    dtype: torch.dtype = torch.float32,
) -> Problem:
    """Normal tensors on DEVICE; the tables broadcast along axes that are not in `axes`."""
    made = make_rotary(
        grid, axes=axes, head_dim=head_dim, rotated=rotated, num_prefix=num_prefix, num_heads=num_heads, batch=batch,
        dtype=dtype, device=DEVICE,
    )  # fmt: skip
    tables = made.settings.pop("cos"), made.settings.pop("sin")
    return Problem(made.tokens, *tables, made.grads_out[0], made.settings)


def evaluate(
    function: Callable[..., Tensor], problem: Problem, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Result and gradient of qkv, computed in `dtype`, that of the problem if None."""
    others = {"cos": problem.cos, "sin": problem.sin, **problem.settings}
    leaves = {"qkv": problem.qkv.to(dtype or problem.qkv.dtype)}
    values = evaluation(lambda qkv: function(qkv, **others), leaves, (problem.grad_out,)).values
    return values["out0"], values["d_qkv"]


def native(*arguments: Any, **settings: Any) -> Tensor:
    """The compiled kernel, or an error."""
    with use_backend("native"):
        return ops.rotary_embedding(*arguments, **settings)


def check(problem: Problem) -> None:
    """Result and gradient are as accurate as those of plain PyTorch, and equal where nothing turns."""
    actual, plain = evaluate(native, problem), evaluate(reference.rotary_embedding, problem)
    exact = evaluate(reference.rotary_embedding, problem, torch.float64)
    terms = [largest(x) * (largest(problem.cos) + largest(problem.sin)) for x in (problem.qkv, problem.grad_out)]
    for index, name in enumerate(("out", "d_qkv")):
        assert_as_accurate(
            actual[index], plain[index], exact[index], factor=(FORWARD, BACKWARD)[index], terms=terms[index], name=name
        )
    for given, turned in zip((problem.qkv, problem.grad_out), actual, strict=True):
        num_prefix, num_heads = problem.settings["num_prefix"], problem.settings["num_heads"]
        before, after = (x.flatten(1, -2).unflatten(-1, (3, num_heads, -1)) for x in (given, turned))
        assert torch.equal(after[:, :num_prefix], before[:, :num_prefix])
        assert torch.equal(after[:, :, 2], before[:, :, 2])
        rotated = problem.cos.shape[-1]
        assert torch.equal(after[..., rotated:], before[..., rotated:])
