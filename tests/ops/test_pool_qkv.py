"""Pooling of packed q, k, v: results and all gradients of the compiled kernels against the reference."""

import pytest
import torch
from attention_check import every_dtype
from kernel_check import assert_same, check, evaluate, native
from pooling_check import MODES, Pool, Triple, make_pool_qkv
from target import CPU_KERNELS, EMULATED, thinned

from vtfast import ops, use_backend

pytestmark = [pytest.mark.requires_native, pytest.mark.every_device]

Pools = tuple[Pool | None, Pool | None, Pool | None]
KERNEL = (3, 3, 3)
# How blocks of published models pool, and what none of them does.
BLOCKS: dict[str, Pools] = {
    "keys-alone": (None, Pool(KERNEL, (1, 4, 4)), Pool(KERNEL, (1, 4, 4))),
    "first-of-a-stage": (Pool(KERNEL, (1, 2, 2)), Pool(KERNEL, (1, 4, 4)), Pool(KERNEL, (1, 4, 4))),
    "inside-a-stage": (Pool(KERNEL), Pool(KERNEL, (1, 8, 8)), Pool(KERNEL, (1, 8, 8))),
    "planes": (Pool((1, 3, 3), (1, 2, 2)), Pool((1, 9, 9), (1, 8, 8)), Pool((1, 9, 9), (1, 8, 8))),
    "average": (Pool(KERNEL, (1, 2, 2), "avg"), Pool(KERNEL, (1, 4, 4), "avg"), Pool(KERNEL, (1, 4, 4), "avg")),
    "largest": (
        Pool(KERNEL, (1, 2, 2), "max", False),
        Pool(KERNEL, (1, 4, 4), "max", False),
        Pool(KERNEL, (1, 4, 4), "max", False),
    ),
    "each-its-own": (Pool((2, 1, 4), (2, 1, 3), "max"), Pool(KERNEL, norm=False), Pool((1, 3, 3), (1, 2, 2), "avg")),
    "queries-alone": (Pool(KERNEL), None, None),
    "values-alone": (None, None, Pool(KERNEL, (1, 2, 2))),
    "none": (None, None, None),
}


@every_dtype
@pytest.mark.parametrize("num_prefix", [0, 1])
@pytest.mark.parametrize("block", thinned(BLOCKS, "keys-alone", "first-of-a-stage", "each-its-own"))
def test_blocks(block: str, num_prefix: int, dtype: torch.dtype) -> None:
    check(make_pool_qkv((3, 8, 9), BLOCKS[block], num_prefix=num_prefix, dtype=dtype))


@every_dtype
@pytest.mark.parametrize("head_dim", [32, 96] + ([20, 7] if CPU_KERNELS else []))
def test_head_dims(head_dim: int, dtype: torch.dtype) -> None:
    check(make_pool_qkv((2, 4, 5), BLOCKS["first-of-a-stage"], head_dim=head_dim, num_heads=3, dtype=dtype))


@pytest.mark.skipif(EMULATED, reason="the size of a model")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("grid", [(8, 14, 14), (2, 28, 28)], ids=str)
def test_blocks_of_a_model(grid: Triple, dtype: torch.dtype) -> None:
    check(make_pool_qkv(grid, BLOCKS["inside-a-stage"], head_dim=96, num_heads=2, batch=1, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float32_parameters_of_low_precision_tokens(dtype: torch.dtype) -> None:
    problem = make_pool_qkv((3, 8, 9), BLOCKS["first-of-a-stage"], dtype=dtype, parameter_dtype=torch.float32)
    check(problem)
    results = evaluate(problem)
    assert all(results[f"d_{name}"].dtype == tensor.dtype for name, tensor in problem.leaves.items())


@pytest.mark.parametrize("mode", MODES)
def test_each_part_is_what_pool_tokens_makes_of_it(mode: str) -> None:
    pools = (Pool(KERNEL, mode=mode), Pool(KERNEL, (1, 2, 2), mode), Pool((1, 3, 3), (1, 4, 4), mode))
    problem = make_pool_qkv((3, 8, 9), pools)
    tensors, settings = problem.leaves, problem.settings
    for part, x, out in zip("qkv", tensors["qkv"].chunk(3, dim=-1), native(problem), strict=True):
        given = {name: tensors.get(f"{part}_{name}") for name in ("weight", "norm_weight", "norm_bias")}
        pool = settings[part]._replace(**given)
        with use_backend("native"):
            alone = ops.pool_tokens(x, settings["grid"], **pool._asdict(), num_heads=2, num_prefix=1)
        torch.testing.assert_close(out, alone)


def test_what_is_not_pooled_stays_as_it_is() -> None:
    problem = make_pool_qkv((3, 4, 5), BLOCKS["keys-alone"])
    results = evaluate(problem)
    assert torch.equal(results["out0"], problem.tokens[..., :16])
    assert torch.equal(results["d_qkv"][..., :16], problem.grads_out[0])


@pytest.mark.parametrize("used", [0, 1, 2])
def test_results_that_nothing_depends_on_have_no_part_in_the_gradient(used: int) -> None:
    problem = make_pool_qkv((3, 4, 5), BLOCKS["first-of-a-stage"])
    grads = [grad if i == used else torch.zeros_like(grad) for i, grad in enumerate(problem.grads_out)]
    problem.grads_out = tuple(grads)
    expected = evaluate(problem)
    leaves = {name: tensor.requires_grad_() for name, tensor in problem.leaves.items()}
    gradients = torch.autograd.grad(
        native(problem)[used], list(leaves.values()), grads[used], allow_unused=True, materialize_grads=True
    )
    named = {f"d_{name}": grad for name, grad in zip(leaves, gradients, strict=True)}
    assert_same(named, {name: expected[name] for name in named})
    parts = named["d_qkv"].chunk(3, dim=-1)
    assert [bool(part.any()) for part in parts] == [i == used for i in range(3)]
