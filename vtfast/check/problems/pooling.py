"""Problems of token pooling: one tensor, and packed q, k and v."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vtfast import ops, reference
from vtfast.check.problems.problem import Operation, Problem, Triple, largest, normal, volume
from vtfast.reference import TokenPool, pooled_grid
from vtfast.testing.case import Function, Results

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
    device: torch.device | str = "cpu",
    seed: int = 0,
    **settings: Any,
) -> Problem:
    """Normal tokens and gradient; the weight keeps the scale of what it pools."""
    generator, channels = torch.Generator().manual_seed(seed), num_heads * head_dim
    x = normal(generator, batch, num_prefix + grid[0] * grid[1] * grid[2], channels)
    parameters = _parameters(generator, pool, head_dim)
    out_tokens = num_prefix + volume(pooled_grid(grid, pool.kernel, pool.stride))
    shape = {"kernel": pool.kernel, "stride": pool.stride, "mode": pool.mode}
    return Problem(
        POOL_TOKENS,
        {"x": x.to(device, dtype)}
        | {name: tensor.to(device, parameter_dtype or dtype) for name, tensor in parameters.items()},
        {"grid": grid, "num_heads": num_heads, "num_prefix": num_prefix} | shape | settings,
        (normal(generator, batch, out_tokens, channels).to(device, dtype),),
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
    device: torch.device | str = "cpu",
    seed: int = 0,
    **settings: Any,
) -> Problem:
    """The same for q, k and v; the leaves `q_weight` and so on are the parameters of the pools."""
    generator, channels = torch.Generator().manual_seed(seed), num_heads * head_dim
    tokens = grid[0] * grid[1] * grid[2]
    leaves = {"qkv": normal(generator, batch, num_prefix + tokens, 3 * channels).to(device, dtype)}
    settings |= {"grid": grid, "num_heads": num_heads, "num_prefix": num_prefix}
    grads_out = []
    for part, pool in zip("qkv", pools, strict=True):
        settings[part] = pool and TokenPool(pool.kernel, pool.stride, pool.mode)
        for name, parameter in _parameters(generator, pool, head_dim).items():
            leaves[f"{part}_{name}"] = parameter.to(device, parameter_dtype or dtype)
        pooled = volume(pooled_grid(grid, pool.kernel, pool.stride)) if pool else tokens
        grads_out.append(normal(generator, batch, num_prefix + pooled, channels).to(device, dtype))
    return Problem(POOL_QKV, leaves, settings, tuple(grads_out), head_dim)


def _parameters(generator: torch.Generator, pool: Pool | None, head_dim: int) -> dict[str, Tensor]:
    parameters = {}
    if pool and pool.mode == "conv":
        parameters["weight"] = normal(generator, head_dim, 1, *pool.kernel) * volume(pool.kernel) ** -0.5
    if pool and pool.norm:
        parameters["norm_weight"] = 1 + 0.3 * normal(generator, head_dim)
        parameters["norm_bias"] = normal(generator, head_dim)
    return parameters


def with_parameters(pool_qkv: Function) -> Function:
    """`pool_qkv` with the parameters of its pools as arguments of their own."""

    def call(*, q: TokenPool | None, k: TokenPool | None, v: TokenPool | None, **arguments: Any) -> Results:
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
    if problem.tokens.numel() == 0:
        return problem.zero_terms()
    leaves = {name: tensor.double().nan_to_num(0, 0, 0) for name, tensor in problem.leaves.items()}
    x, grad = leaves["x"], largest(problem.grads_out[0])
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
    gradients = {
        "x": share * d_pooled,
        "weight": rows * d_pooled * largest(x),
        "norm_weight": rows * d_norm,
        "norm_bias": rows * grad,
    }
    return {"out0": out} | {f"d_{name}": gradients[name] for name in leaves}


def _terms_of_pool_qkv(problem: Problem) -> dict[str, float]:
    """Those of each part alone."""
    terms = problem.zero_terms()
    for i, part in enumerate("qkv"):
        grad_out = problem.grads_out[i]
        pool = problem.settings[part]
        if pool is None:
            continue
        x = problem.leaves["qkv"].chunk(3, dim=-1)[i]
        given = {name: problem.leaves.get(f"{part}_{name}") for name in PARAMETERS}
        leaves = {"x": x} | {name: tensor for name, tensor in given.items() if tensor is not None}
        shared = {name: value for name, value in problem.settings.items() if name not in ("q", "k", "v")}
        shape = {"kernel": pool.kernel, "stride": pool.stride, "mode": pool.mode}
        alone = _terms_of_pool_tokens(Problem(POOL_TOKENS, leaves, shared | shape, (grad_out,), problem.head_dim))
        terms |= {f"out{i}": alone["out0"], "d_qkv": max(terms["d_qkv"], alone["d_x"])}
        terms |= {f"d_{part}_{name}": alone[f"d_{name}"] for name in leaves if name != "x"}
    return terms


POOL_TOKENS = Operation("pool_tokens", ops.pool_tokens, reference.pool_tokens, _terms_of_pool_tokens, ("x",))
POOL_QKV = Operation(
    "pool_qkv", with_parameters(ops.pool_qkv), with_parameters(reference.pool_qkv), _terms_of_pool_qkv, ("qkv",)
)
