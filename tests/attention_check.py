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

Triple = tuple[int, int, int]
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
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    num_prefix, tokens, channels = settings.get("num_prefix", 0), grid[0] * grid[1] * grid[2], num_heads * head_dim
    window = settings.get("bias_window", block)
    rows = (2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1)
    qkv = normal(batch, num_prefix + tokens, 3 * channels)
    qkv[..., : 2 * channels] *= logits**0.5
    out_tokens = tokens + (num_prefix if settings.get("prefix_queries", "none") != "none" else 0)
    return Problem(
        qkv=qkv.to(DEVICE, dtype),
        bias_table=normal(rows, num_heads).to(DEVICE, bias_dtype or dtype) if bias else None,
        pad_qkv=normal(3 * channels).to(DEVICE, dtype) if pad else None,
        key_mask=None if key_mask is None else key_mask.to(DEVICE),
        settings={"grid": grid, "block": block, "num_heads": num_heads, **settings},
        grad_out=normal(batch, out_tokens, channels).to(DEVICE, dtype),
    )


def evaluate(attention: Callable[..., Tensor], problem: Problem, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """`out` and `d_<name>` of each differentiable input, computed in `dtype`, that of the problem if None."""
    leaves = {
        name: tensor.detach().to(dtype or tensor.dtype).requires_grad_() for name, tensor in problem.leaves().items()
    }
    out = attention(**leaves, key_mask=problem.key_mask, **problem.settings)
    grads = torch.autograd.grad(
        out, list(leaves.values()), problem.grad_out.to(out.dtype), allow_unused=True, materialize_grads=True
    )
    return {"out": out.detach()} | {f"d_{name}": grad for name, grad in zip(leaves, grads, strict=True)}


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
    terms = _sizes_of_terms(problem)
    for name, result in actual.items():
        factor = FORWARD if name == "out" else BACKWARD
        assert_as_accurate(result, same_dtype[name], exact[name], factor=factor, terms=terms[name], name=name)


def _sizes_of_terms(problem: Problem) -> dict[str, float]:
    """Size of what is summed for an element of each result, were no terms to cancel but by chance.

    A score s is known to eps * s at best, so every probability p to that relative accuracy. The terms of the gradients
    are p (dp - delta) with dp = <grad_out, v>, and a row of them, of total weight 1, exists for every query.
    """
    heads = problem.settings["num_heads"]
    head_dim = problem.qkv.shape[-1] // 3 // heads
    packed = problem.qkv.double().nan_to_num(0, 0, 0).reshape(-1, 3, heads, head_dim)
    if problem.pad_qkv is not None:
        packed = torch.cat([packed, problem.pad_qkv.double().reshape(1, 3, heads, head_dim)])
    if packed.shape[0] == 0:
        return dict.fromkeys(("out", "d_qkv", "d_bias_table", "d_pad_qkv"), 0.0)
    scale = abs(problem.settings.get("scale") or head_dim**-0.5)
    q, k, v = packed.norm(dim=-1).amax(dim=(0, 2)).tolist()
    grad = problem.grad_out.double().nan_to_num(0, 0, 0).reshape(-1, head_dim).norm(dim=-1).max().item()
    # Vectors of norm a and b that know nothing of each other have a product of about a * b / sqrt(head_dim).
    relative = 1 + scale * q * k * head_dim**-0.5
    dp = grad * v * head_dim**-0.5
    rows = problem.qkv.shape[:-1].numel()
    d_token = max(scale * dp * max(q, k), grad)
    return {
        "out": relative * packed[:, 2].abs().max().item(),
        "d_qkv": relative * d_token,
        "d_bias_table": relative * rows**0.5 * dp,
        "d_pad_qkv": relative * rows**0.5 * d_token,
    }
