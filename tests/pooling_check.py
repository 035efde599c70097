"""Problems of token pooling for kernel_check.py: one tensor, and packed q, k and v."""

from dataclasses import dataclass
from typing import Any

import torch
from kernel_check import Function, Operation, Problem, largest, normal, place
from torch import Tensor

from vtfast import ops, reference
from vtfast.reference import TokenPool, pooled_grid

Triple = tuple[int, int, int]
MODES = ("conv", "avg", "max")
PARAMETERS = ("weight", "norm_weight", "norm_bias")


@dataclass(frozen=True)
class Pool:
    """How tokens are pooled, without the parameters."""

    kernel: Triple
    stride: Triple = (1, 1, 1)
    mode: str = "conv"
    norm: bool = True


def make_pool_tokens(
    grid: Triple,
    pool: Pool,
    *,
    dtype: torch.dtype = torch.float32,
    parameter_dtype: torch.dtype | None = None,
    batch: int = 2,
    num_heads: int = 2,
    head_dim: int = 8,
    num_prefix: int = 1,
    **settings: Any,
) -> Problem:
    """Normal tokens and gradient on DEVICE; the weight keeps the scale of what it pools."""
    generator, channels = torch.Generator().manual_seed(0), num_heads * head_dim
    x = normal(generator, batch, num_prefix + grid[0] * grid[1] * grid[2], channels)
    parameters = _parameters(generator, pool, head_dim)
    out_tokens = num_prefix + torch.Size(pooled_grid(grid, pool.kernel, pool.stride)).numel()
    shape = {"kernel": pool.kernel, "stride": pool.stride, "mode": pool.mode}
    return Problem(
        POOL_TOKENS,
        {"x": place(x, dtype)} | {name: place(tensor, parameter_dtype or dtype) for name, tensor in parameters.items()},
        {"grid": grid, "num_heads": num_heads, "num_prefix": num_prefix} | shape | settings,
        (place(normal(generator, batch, out_tokens, channels), dtype),),
        head_dim,
    )


def make_pool_qkv(
    grid: Triple,
    pools: tuple[Pool | None, Pool | None, Pool | None],
    *,
    dtype: torch.dtype = torch.float32,
    parameter_dtype: torch.dtype | None = None,
    batch: int = 2,
    num_heads: int = 2,
    head_dim: int = 8,
    num_prefix: int = 1,
) -> Problem:
    """The same for q, k and v; the leaves `q_weight` and so on are the parameters of the pools."""
    generator, channels = torch.Generator().manual_seed(0), num_heads * head_dim
    tokens = grid[0] * grid[1] * grid[2]
    leaves = {"qkv": place(normal(generator, batch, num_prefix + tokens, 3 * channels), dtype)}
    settings: dict[str, Any] = {"grid": grid, "num_heads": num_heads, "num_prefix": num_prefix}
    grads_out = []
    for part, pool in zip("qkv", pools, strict=True):
        settings[part] = pool and TokenPool(pool.kernel, pool.stride, pool.mode)
        for name, parameter in _parameters(generator, pool, head_dim).items():
            leaves[f"{part}_{name}"] = place(parameter, parameter_dtype or dtype)
        pooled = torch.Size(pooled_grid(grid, pool.kernel, pool.stride)).numel() if pool else tokens
        grads_out.append(place(normal(generator, batch, num_prefix + pooled, channels), dtype))
    return Problem(POOL_QKV, leaves, settings, tuple(grads_out), head_dim)


def _parameters(generator: torch.Generator, pool: Pool | None, head_dim: int) -> dict[str, Tensor]:
    parameters = {}
    if pool and pool.mode == "conv":
        size = torch.Size(pool.kernel).numel()
        parameters["weight"] = normal(generator, head_dim, 1, *pool.kernel) * size**-0.5
    if pool and pool.norm:
        parameters["norm_weight"] = 1 + 0.3 * normal(generator, head_dim)
        parameters["norm_bias"] = normal(generator, head_dim)
    return parameters


def with_parameters(pool_qkv: Function) -> Function:
    """`pool_qkv` with the parameters of its pools as arguments of their own."""

    def call(
        *, q: TokenPool | None, k: TokenPool | None, v: TokenPool | None, **arguments: Any
    ) -> Tensor | tuple[Tensor, ...]:
        pools = {}
        for part, pool in (("q", q), ("k", k), ("v", v)):
            given = {name: arguments.pop(f"{part}_{name}", None) for name in PARAMETERS}
            pools[part] = pool and pool._replace(**given)
        return pool_qkv(**arguments, **pools)

    return call


def _terms_of_pool_tokens(problem: Problem) -> dict[str, float]:
    """Size of what is summed for an element of each result, were no terms to cancel but by chance.

    What a norm is given is known to eps * (sum of absolute products) at best, and the norm divides by the spread.
    """
    leaves = {name: tensor.double().nan_to_num(0, 0, 0) for name, tensor in problem.leaves.items()}
    x, grad = leaves["x"], largest(problem.grads_out[0])
    if x.numel() == 0:
        return dict.fromkeys(("out0", *(f"d_{name}" for name in leaves)), 0.0)
    settings = {name: value for name, value in problem.settings.items() if name != "eps"}
    weight = leaves.get("weight")
    sums = reference.pool_tokens(x.abs(), **settings, weight=None if weight is None else weight.abs())
    relative, share = largest(sums), 1.0 if weight is None else leaves["weight"].abs().flatten(1).sum(1).max().item()
    out, d_pooled, d_norm = relative, grad, 0.0
    if "norm_weight" in leaves:
        pooled = reference.pool_tokens(x, **settings, weight=weight).unflatten(-1, (settings["num_heads"], -1))
        rstd = (pooled.var(dim=-1, correction=0) + problem.settings.get("eps", 1e-6)).rsqrt()
        relative = (rstd * sums.unflatten(-1, (settings["num_heads"], -1)).amax(-1)).max().item()
        gain = largest(leaves["norm_weight"])
        out = relative * gain + largest(leaves["norm_bias"])
        d_pooled = (1 + relative) * rstd.max().item() * gain * grad
        d_norm = relative * grad
    rows = (problem.grads_out[0].numel() // problem.head_dim) ** 0.5
    return {
        "out0": out,
        "d_x": share * d_pooled,
        "d_weight": rows * d_pooled * largest(x),
        "d_norm_weight": rows * d_norm,
        "d_norm_bias": rows * grad,
    }


def _terms_of_pool_qkv(problem: Problem) -> dict[str, float]:
    """Those of each part alone."""
    terms = {"d_qkv": 0.0}
    for i, part in enumerate("qkv"):
        grad_out = problem.grads_out[i]
        pool = problem.settings[part]
        if pool is None:
            terms |= {f"out{i}": 0.0}
            continue
        x = problem.leaves["qkv"].chunk(3, dim=-1)[i]
        given = {name: problem.leaves.get(f"{part}_{name}") for name in PARAMETERS}
        leaves = {"x": x} | {name: tensor for name, tensor in given.items() if tensor is not None}
        shared = {name: problem.settings[name] for name in ("grid", "num_heads", "num_prefix")}
        shape = {"kernel": pool.kernel, "stride": pool.stride, "mode": pool.mode}
        alone = _terms_of_pool_tokens(Problem(POOL_TOKENS, leaves, shared | shape, (grad_out,), problem.head_dim))
        terms |= {f"out{i}": alone["out0"]} | {f"d_{part}_{name}": alone.get(f"d_{name}", 0.0) for name in PARAMETERS}
        terms["d_qkv"] = max(terms["d_qkv"], alone["d_x"])
    return terms


POOL_TOKENS = Operation("pool_tokens", ops.pool_tokens, reference.pool_tokens, _terms_of_pool_tokens, ("x",))
POOL_QKV = Operation(
    "pool_qkv", with_parameters(ops.pool_qkv), with_parameters(reference.pool_qkv), _terms_of_pool_qkv, ("qkv",)
)
