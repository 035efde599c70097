"""What holds for pooling and depthwise convolution alike: gradients, layouts, repeatability, empty batches."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from attention_check import every_dtype, needs_float64
from depthwise_check import make_depthwise
from kernel_check import Problem, assert_same, evaluate, native, normal
from pooling_attention_check import make_pooling_attention
from pooling_check import Pool, make_pool_qkv, make_pool_tokens
from target import DEVICE, in_several_orders, thinned
from torch import Tensor

from vtfast import use_backend

pytestmark = [pytest.mark.requires_native, pytest.mark.every_device]

KERNEL = (3, 3, 3)
Q, KV = Pool(KERNEL, (1, 2, 2)), Pool(KERNEL, (1, 4, 4))
PROBLEMS: dict[str, Callable[..., Problem]] = {
    "conv": lambda **settings: make_pool_tokens((3, 5, 6), Q, **settings),
    "avg": lambda **settings: make_pool_tokens((3, 5, 6), replace(Q, mode="avg"), **settings),
    "max": lambda **settings: make_pool_tokens((3, 5, 6), replace(Q, mode="max"), **settings),
    "qkv": lambda **settings: make_pool_qkv((3, 5, 6), (Q, KV, KV), **settings),
    "q-alone": lambda **settings: make_pool_qkv((3, 5, 6), (Q, None, None), **settings),
    "attention": lambda **settings: make_pooling_attention((3, 5, 6), (3, 2, 3), residual=True, **settings),
    "residual": lambda **settings: make_pooling_attention((2, 3, 2), (3, 5, 6), residual_prefix=True, **settings),
    "depthwise": lambda num_heads=2, **settings: make_depthwise((3, 5, 6), KERNEL, channels=8 * num_heads, **settings),
}
every_problem = pytest.mark.parametrize("name", PROBLEMS)
one_of_each = pytest.mark.parametrize("name", ["conv", "qkv", "attention", "depthwise"])

DEPTHWISE: dict[str, dict[str, Any]] = {
    "residual": {"kernel": KERNEL, "residual": True},
    "large": {"kernel": (5, 5, 5), "bias": False},
    "time": {"kernel": (3, 1, 1), "residual": True, "bias": False},
    "plane": {"kernel": (1, 3, 3), "stride": (1, 2, 2)},
    "even": {"kernel": (2, 2, 1), "stride": (2, 1, 1), "padding": (1, 0, 2)},
}

SMALL: dict[str, Callable[[], Problem]] = {
    **{
        f"{mode}-{norm}": lambda mode=mode, norm=norm: make_pool_tokens(
            (2, 3, 3), Pool(KERNEL, (1, 2, 2), mode, norm == "norm"), head_dim=3, batch=1, dtype=torch.float64
        )
        for mode in ("conv", "avg", "max")
        for norm in ("norm", "bare")
    },
    "qkv": lambda: make_pool_qkv(
        (2, 2, 3), (Pool(KERNEL), None, Pool((1, 2, 2), (1, 2, 2), "avg")), head_dim=3, batch=1, dtype=torch.float64
    ),
    "attention": lambda: make_pooling_attention(
        (1, 3, 2), (2, 2, 2), head_dim=3, batch=1, residual=True, dtype=torch.float64
    ),
    "attention-prefix": lambda: make_pooling_attention(
        (2, 2, 1), (1, 2, 3), head_dim=3, batch=1, residual_prefix=True, num_prefix=2, rel_pos="hw", dtype=torch.float64
    ),
    **{
        f"depthwise-{name}": lambda options=options: make_depthwise(
            (2, 3, 3), channels=3, batch=1, dtype=torch.float64, **options
        )
        for name, options in DEPTHWISE.items()
    },
}


@needs_float64
@pytest.mark.parametrize("name", SMALL)
def test_gradcheck(name: str) -> None:
    problem = SMALL[name]()
    names = list(problem.leaves)

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        return native(replace(problem, leaves=dict(zip(names, tensors, strict=True))))

    assert torch.autograd.gradcheck(function, tuple(leaf.requires_grad_() for leaf in problem.leaves.values()))


@one_of_each
def test_a_second_derivative_is_an_error_and_not_zero(name: str) -> None:
    problem = PROBLEMS[name]()
    tokens = problem.tokens.requires_grad_()
    (grad,) = torch.autograd.grad(native(problem)[0].square().sum(), tokens, create_graph=True)
    with pytest.raises(RuntimeError, match='has no second derivative; the backend "reference" has'):
        grad.sum().backward()
    with use_backend("reference"):
        out = problem.operation.function(**problem.leaves, **problem.settings)
        first = out if isinstance(out, Tensor) else out[0]
        (grad,) = torch.autograd.grad(first.square().sum(), tokens, create_graph=True)
        assert torch.autograd.grad(grad.square().sum(), tokens)[0].any()


@one_of_each
def test_gradient_of_one_input_alone(name: str) -> None:
    expected = evaluate(PROBLEMS[name]())
    for wanted in PROBLEMS[name]().leaves:
        problem = PROBLEMS[name]()
        leaf = problem.leaves[wanted].requires_grad_()
        (grad,) = torch.autograd.grad(native(problem), leaf, problem.grads_out)
        assert torch.equal(grad, expected[f"d_{wanted}"]), wanted


def unaligned(tensor: Tensor) -> Tensor:
    """The same values one element behind an allocation's start, so that no vector of them is aligned."""
    return torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view(tensor.shape)


def strided(tensor: Tensor) -> Tensor:
    """The same values as every second element of a larger tensor, last dimension slowest."""
    larger = torch.stack([tensor, torch.full_like(tensor, float("nan"))], dim=-1)
    return larger.movedim(-2, 0).contiguous().movedim(0, -2)[..., 0]


def packed(tensor: Tensor) -> Tensor:
    """The same values as the middle third of a larger tensor."""
    return torch.cat([torch.full_like(tensor, float("nan")), tensor, tensor], dim=-1).chunk(3, dim=-1)[1]


def sequence_first(tensor: Tensor) -> Tensor:
    """The same values with the first two dimensions swapped in memory."""
    return tensor.transpose(0, 1).contiguous().transpose(0, 1) if tensor.dim() > 1 else tensor


LAYOUTS = {"unaligned": unaligned, "strided": strided, "packed": packed, "sequence-first": sequence_first}


@every_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["conv", "max", "qkv", "attention", "depthwise"])
def test_layout_of_the_tensors_does_not_matter(name: str, layout: str, dtype: torch.dtype) -> None:
    problem = PROBLEMS[name](dtype=dtype)
    changed = problem.changed(LAYOUTS[layout])
    assert_same(evaluate(changed), evaluate(problem))


@every_problem
def test_expanded_tokens_and_gradients(name: str) -> None:
    problem = PROBLEMS[name](batch=1)
    still = replace(
        problem.of_clips(lambda tensor: tensor.expand(3, *tensor.shape[1:])),
        grads_out=tuple(grad.flatten()[0].expand(3, *grad.shape[1:]) for grad in problem.grads_out),
    )
    assert still.tokens.stride(0) == 0
    assert not any(still.grads_out[0].stride())
    assert_same(evaluate(still), evaluate(still.changed(Tensor.contiguous)))


@every_dtype
@every_problem
def test_empty_batch(name: str, dtype: torch.dtype) -> None:
    problem = PROBLEMS[name](batch=0, dtype=dtype)
    results = evaluate(problem)
    for i, grad in enumerate(problem.grads_out):
        assert results[f"out{i}"].shape == grad.shape
    for leaf, tensor in problem.leaves.items():
        assert results[f"d_{leaf}"].shape == tensor.shape
        assert (results[f"d_{leaf}"] == 0).all()


@every_dtype
@pytest.mark.parametrize("name", thinned(PROBLEMS, "conv", "max", "qkv", "attention", "depthwise"))
def test_bitwise_repeatable_from_run_to_run_and_in_any_order_of_the_work(name: str, dtype: torch.dtype) -> None:
    problem = PROBLEMS[name](dtype=dtype, num_heads=3, batch=3)
    first = evaluate(problem)
    for _ in in_several_orders():
        assert_same(evaluate(problem), first)


@pytest.mark.parametrize("clip", [0, 1, 2])
@pytest.mark.parametrize("name", thinned(PROBLEMS, "conv", "max", "attention", "depthwise"))
def test_a_clip_does_not_depend_on_its_batch(name: str, clip: int) -> None:
    problem = PROBLEMS[name](batch=3)
    alone = problem.of_clips(lambda tensor: tensor[clip : clip + 1])
    together, separate = evaluate(problem), evaluate(alone)
    of_clips = [f"d_{leaf}" for leaf in problem.operation.tokens]
    for result in together:
        if result.startswith("out") or result in of_clips:
            assert torch.equal(together[result][clip : clip + 1], separate[result]), result


def saved_bytes(problem: Problem) -> int:
    """Bytes that autograd keeps for the backward pass."""
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    for leaf in problem.leaves.values():
        leaf.requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        results = native(problem)
    assert all(out.requires_grad for out in results)
    return sum(sizes.values())


@every_problem
def test_what_is_kept_for_the_backward_is_what_came_in(name: str) -> None:
    """And a logsumexp for each head of a query."""
    problem = PROBLEMS[name]()
    given = sum(tensor.numel() * tensor.element_size() for tensor in problem.leaves.values())
    attends = problem.operation.name == "pooling_attention"
    assert saved_bytes(problem) <= given + (4 * 2 * problem.tokens.shape[:2].numel() if attends else 0)


def test_keys_and_values_that_share_memory() -> None:
    problem = make_pooling_attention((2, 3, 4), (2, 3, 4), rel_pos="")
    generator = torch.Generator().manual_seed(1)
    qkv = normal(generator, 2, 25, 3 * 16).to(DEVICE, torch.float32).requires_grad_()
    parts = dict(zip("qkv", qkv.chunk(3, dim=-1), strict=True))
    copies = {name: part.detach().clone().requires_grad_() for name, part in parts.items()}
    (d_qkv,) = torch.autograd.grad(native(replace(problem, leaves=parts)), qkv, problem.grads_out)
    expected = torch.autograd.grad(native(replace(problem, leaves=copies)), list(copies.values()), problem.grads_out)
    assert torch.equal(d_qkv, torch.cat(expected, dim=-1))
