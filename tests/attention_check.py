"""Grid attention, kernel against reference: inputs of a problem, its result and all gradients, and the comparison."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from target import CPU_KERNELS, DEVICE
from tolerance import BACKWARD, FORWARD, assert_as_accurate
from torch import Tensor

import vtfast
from vtfast import reference
from vtfast.check.problems import problem as problems
from vtfast.check.problems.grid_attention import GRID_ATTENTION, attention_terms, make_grid_attention
from vtfast.check.problems.problem import Triple
from vtfast.testing.case import evaluate as evaluation

DTYPES = [torch.float32, torch.bfloat16, torch.float16] + ([torch.float64] if CPU_KERNELS else [])
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
needs_float64 = pytest.mark.skipif(torch.float64 not in DTYPES, reason="no kernel on this device takes float64")


@dataclass
class Problem:
    """Tensors in the dtype to be tested, and the settings of `grid_attention`."""

    qkv: Tensor  # [B, P + T*H*W, 3*C] or [B, T, H, W, 3*C]
    bias_table: Tensor | None
    pad_qkv: Tensor | None
    key_mask: Tensor | None
    settings: dict[str, Any]
    grad_out: Tensor  # in the layout of the result

    def leaves(self) -> dict[str, Tensor]:
        named = {"qkv": self.qkv, "bias_table": self.bias_table, "pad_qkv": self.pad_qkv}
        return {name: tensor for name, tensor in named.items() if tensor is not None}


def make_problem(
    grid: Triple,
    block: Triple,
    *,
    dtype: torch.dtype = torch.float32,
    batch: int = 2,
    num_heads: int = 2,
    head_dim: int = 8,
    bias: bool = True,
    pad: bool = True,
    bias_dtype: torch.dtype | None = None,
    key_mask: Tensor | None = None,
    logits: float = 1.0,
    **settings: Any,
) -> Problem:
    """Normal q, k, v, table, padding and gradient on DEVICE; `logits` is the standard deviation of scale * q k^T."""
    made = make_grid_attention(
        grid, block, dtype=dtype, batch=batch, num_heads=num_heads, head_dim=head_dim, bias=bias, pad=pad,
        bias_dtype=bias_dtype, key_mask=key_mask, logits=logits, device=DEVICE, **settings,
    )  # fmt: skip
    key_mask = made.settings.pop("key_mask", None)
    tensors = (made.leaves.get(name) for name in ("qkv", "bias_table", "pad_qkv"))
    return Problem(*tensors, key_mask, made.settings, made.grads_out[0])


def evaluate(attention: Callable[..., Tensor], problem: Problem, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """`out` and `d_<name>` of each differentiable input, computed in `dtype`, that of the problem if None."""
    leaves = {name: tensor.to(dtype or tensor.dtype) for name, tensor in problem.leaves().items()}
    others = {"key_mask": problem.key_mask, **problem.settings}
    values = evaluation(lambda **leaves: attention(**leaves, **others), leaves, (problem.grad_out,)).values
    return {"out" if name == "out0" else name: value for name, value in values.items()}


def native(**arguments: Any) -> Tensor:
    """The compiled kernel, or an error."""
    with vtfast.use_backend("native"):
        return vtfast.ops.grid_attention(**arguments)


def unsupported(problem: Problem) -> bool:
    """Whether this is for the reference; the kernels of the CPU take everything."""
    head_dim = problem.qkv.shape[-1] // 3 // problem.settings["num_heads"]
    return not CPU_KERNELS and (problem.qkv.dtype == torch.float64 or head_dim % 8 != 0 or head_dim > 128)


def check(
    problem: Problem,
    kernel: Callable[..., Tensor] = native,
    plain: Callable[..., Tensor] = reference.grid_attention,
) -> None:
    """The kernel's result and gradients are as accurate as those of plain PyTorch in the same dtype.

    Where no kernel takes the problem, the error says why.
    """
    if unsupported(problem):
        with pytest.raises(RuntimeError, match=r"grid_attention.*(head_dim|float64)"):
            evaluate(kernel, problem)
        return
    actual = evaluate(kernel, problem)
    same_dtype = evaluate(plain, problem)
    exact = evaluate(plain, problem, torch.float64)
    head_dim = problem.qkv.shape[-1] // 3 // problem.settings["num_heads"]
    general = problems.Problem(GRID_ATTENTION, problem.leaves(), problem.settings, (problem.grad_out,), head_dim)
    terms = attention_terms(general)
    terms["out"] = terms.pop("out0")
    for name, result in actual.items():
        factor = FORWARD if name == "out" else BACKWARD
        assert_as_accurate(result, same_dtype[name], exact[name], factor=factor, terms=terms[name], name=name)
