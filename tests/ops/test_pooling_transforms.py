"""What PyTorch does to pooling and depthwise convolution: opcheck, compile, export, autocast, vmap, checkpointing."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from attention_check import every_dtype
from depthwise_check import make_depthwise
from kernel_check import Problem, assert_same, evaluate, native
from pooling_attention_check import make_pooling_attention
from pooling_check import Pool, make_pool_qkv, make_pool_tokens
from target import DEVICE, EMULATED, thinned
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from vtfast import ops, reference
from vtfast.reference import TokenPool

pytestmark = [pytest.mark.requires_native, pytest.mark.every_device]
compiles = pytest.mark.skipif(EMULATED, reason="the compiler sees the same operator as on the CPU")

KERNEL, GRID = (3, 3, 3), (2, 4, 5)
Q, KV = Pool(KERNEL), Pool(KERNEL, (1, 2, 2))
PROBLEMS: dict[str, Callable[..., Problem]] = {
    "conv": lambda **settings: make_pool_tokens(GRID, Q, **settings),
    "max": lambda **settings: make_pool_tokens(GRID, replace(KV, mode="max", norm=False), **settings),
    "qkv": lambda **settings: make_pool_qkv(GRID, (Q, KV, KV), **settings),
    "q-alone": lambda **settings: make_pool_qkv(GRID, (replace(Q, mode="avg"), None, None), **settings),
    "attention": lambda **settings: make_pooling_attention(GRID, (2, 2, 3), residual=True, **settings),
    "plain-attention": lambda **settings: make_pooling_attention(GRID, (2, 2, 3), rel_pos="", **settings),
    "depthwise": lambda **settings: make_depthwise(GRID, KERNEL, residual=True, **settings),
    "depthwise-halved": lambda **settings: make_depthwise(GRID, KERNEL, stride=(1, 2, 2), bias=False, **settings),
}
every_problem = pytest.mark.parametrize("name", thinned(PROBLEMS, "conv", "qkv", "attention", "depthwise"))
one_of_each = pytest.mark.parametrize("name", ["conv", "qkv", "attention", "depthwise"])


class Recorder(TorchDispatchMode):
    """Keeps the calls of the compiled operators."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "vtfast":
            self.calls.append((function, args))
        return function(*args, **(kwargs or {}))


@every_dtype
@pytest.mark.parametrize("requires_grad", [False, True], ids=["inference", "training"])
@every_problem
def test_opcheck(name: str, requires_grad: bool, dtype: torch.dtype) -> None:
    problem = (
        PROBLEMS[name](dtype=dtype, parameter_dtype=dtype) if "attention" not in name else PROBLEMS[name](dtype=dtype)
    )
    with Recorder() as recorder:
        native(problem)
    ((operator, arguments),) = recorder.calls
    prepared = [
        argument.clone().requires_grad_(requires_grad) if isinstance(argument, Tensor) else argument
        for argument in arguments
    ]
    torch.library.opcheck(operator, tuple(prepared))


class Attention(nn.Module):
    """The attention of a block: pooling with a norm, relative positions along every axis, residual pooling."""

    def __init__(self, num_prefix: int) -> None:
        super().__init__()
        self.num_prefix = num_prefix
        self.qkv = nn.Linear(16, 48)
        self.weights = nn.Parameter(torch.randn(3, 8, 1, 3, 3, 3))
        self.norm_weight, self.norm_bias = nn.Parameter(torch.randn(8)), nn.Parameter(torch.randn(8))
        self.table = nn.Parameter(torch.randn(15, 8))

    def forward(self, x: Tensor, grid: tuple[int, int, int]) -> Tensor:  # [B, P + T*H*W, 16] -> the same
        norm, strides = (self.norm_weight, self.norm_bias), ((1, 1, 1), (1, 2, 2), (1, 2, 2))
        pools = [TokenPool(KERNEL, s, "conv", w, *norm) for w, s in zip(self.weights.unbind(), strides, strict=True)]
        named = dict(zip("qkv", pools, strict=True))
        q, k, v = ops.pool_qkv(self.qkv(x), grid, num_heads=2, **named, num_prefix=self.num_prefix)
        k_grid = reference.pooled_grid(grid, KERNEL, (1, 2, 2))
        table = self.table[: 2 * grid[0] - 1]
        out = ops.pooling_attention(
            q, k, v, grid, k_grid, num_heads=2, rel_pos_t=table, residual=True, num_prefix=self.num_prefix
        )
        skip = ops.pool_tokens(x, grid, kernel=(1, 3, 3), mode="max", num_prefix=self.num_prefix)
        return out + skip


class Convolutions(nn.Module):
    """A position embedding and a convolution that halves the grid, behind a cls for each frame."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(2, 16, 1, 3, 3, 3))
        self.bias = nn.Parameter(torch.randn(16))

    def forward(self, x: Tensor, grid: tuple[int, int, int]) -> Tensor:  # [B, T, 1 + H*W, 16] -> [B, T, H', W', 16]
        tokens = x[:, :, 1:].unflatten(2, grid[1:])
        embedded = ops.depthwise_conv3d(tokens, self.weights[0], self.bias, residual=True)
        return ops.depthwise_conv3d(embedded, self.weights[1], stride=(1, 2, 2))


SIZES = [(2, 4, 6, 7), (3, 5, 8, 9), (4, 6, 10, 6)]


@compiles
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("num_prefix", [0, 1])
def test_compiled_once_for_all_sizes_with_the_same_gradients(num_prefix: int) -> None:
    counter, module = CompileCounterWithBackend("aot_eager"), Attention(num_prefix).to(DEVICE)
    compiled = torch.compile(module, backend=counter, fullgraph=True, dynamic=True)
    graphs = []
    for batch, *grid in SIZES:
        tokens = num_prefix + torch.Size(grid).numel()
        x = torch.randn(batch, tokens, 16, device=DEVICE, requires_grad=True)
        leaves, results = [x, *module.parameters()], []
        for function in (module, compiled):
            out = function(x, tuple(grid))
            results.append((out, torch.autograd.grad(out.square().mean(), leaves)))
        torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)
        graphs.append(counter.frame_count)
    # The default of eps costs torch 2.13 a second attempt at the first graph: it takes a float for dynamic at first.
    assert graphs[0] == graphs[-1]


@compiles
@pytest.mark.usefixtures("fresh_compiler")
def test_convolutions_compiled_once_for_all_sizes_with_the_same_gradients() -> None:
    counter, module = CompileCounterWithBackend("aot_eager"), Convolutions().to(DEVICE)
    compiled = torch.compile(module, backend=counter, fullgraph=True, dynamic=True)
    for batch, *grid in SIZES:
        x = torch.randn(batch, grid[0], 1 + grid[1] * grid[2], 16, device=DEVICE, requires_grad=True)
        leaves, results = [x, *module.parameters()], []
        for function in (module, compiled):
            out = function(x, tuple(grid))
            results.append((out, torch.autograd.grad(out.square().mean(), leaves)))
        torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)
    assert counter.frame_count == 1


@compiles
def test_export_with_a_dynamic_batch() -> None:
    class Fixed(Attention):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x, (4, 6, 7))

    module = Fixed(1).to(DEVICE)
    example = (torch.randn(2, 169, 16, device=DEVICE),)
    program = torch.export.export(module, example, dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    for batch in (1, 3):
        x = torch.randn(batch, 169, 16, device=DEVICE)
        torch.testing.assert_close(program.module()(x), module(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_problem
def test_autocast_follows_the_users_dtype_and_leaves_the_parameters_alone(name: str, dtype: torch.dtype) -> None:
    problem = PROBLEMS[name]()
    expected = evaluate(problem.of_clips(lambda tensor: tensor.to(dtype)))
    with torch.autocast(DEVICE.type, dtype):
        results = evaluate(problem)
    for result, tensor in results.items():
        assert tensor.dtype == (dtype if result.startswith("out") else torch.float32)
        torch.testing.assert_close(tensor, expected[result].to(tensor.dtype), rtol=0, atol=0, msg=result)


@compiles
@pytest.mark.usefixtures("fresh_compiler")
def test_autocast_inside_a_compiled_function() -> None:
    module, x = Attention(1).to(DEVICE), torch.randn(2, 169, 16, device=DEVICE)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        out, expected = compiled(x, (4, 6, 7)), module(x, (4, 6, 7))
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("in_dim", [0, 1, 2])
@every_problem
def test_vmap_over_the_tokens(name: str, in_dim: int) -> None:
    problem = PROBLEMS[name]()
    first = next(iter(problem.leaves))
    stacked = torch.randn(3, *problem.tokens.shape, device=DEVICE)

    def function(tokens: Tensor) -> tuple[Tensor, ...]:
        return native(replace(problem, leaves=problem.leaves | {first: tokens}))

    expected = [torch.stack(outs) for outs in zip(*map(function, stacked), strict=True)]
    mapped = torch.vmap(function, in_dims=in_dim)(stacked.movedim(0, in_dim))
    assert all(torch.equal(*pair) for pair in zip(mapped, expected, strict=True))


def test_vmap_over_keys_and_values() -> None:
    problem = PROBLEMS["attention"]()
    k, v = (torch.randn(3, *problem.leaves["k"].shape, device=DEVICE) for _ in range(2))

    def attend(k: Tensor, v: Tensor) -> Tensor:
        return native(replace(problem, leaves=problem.leaves | {"k": k, "v": v}))[0]

    expected = torch.stack([attend(*pair) for pair in zip(k, v, strict=True)])
    assert torch.equal(torch.vmap(attend)(k, v), expected)


@pytest.mark.parametrize(
    ("name", "leaf", "message"),
    [
        ("conv", "weight", "vmap over the parameters of pool_tokens is not supported"),
        ("qkv", "k_norm_bias", "vmap over the parameters of pool_qkv is not supported"),
        ("depthwise", "bias", "vmap over the parameters of depthwise_conv3d is not supported"),
        ("attention", "rel_pos_h", "vmap over relative positions is not supported"),
    ],
)
def test_vmap_over_the_parameters_says_that_it_cannot(name: str, leaf: str, message: str) -> None:
    problem = PROBLEMS[name]()

    def function(parameter: Tensor) -> tuple[Tensor, ...]:
        return native(replace(problem, leaves=problem.leaves | {leaf: parameter}))

    with pytest.raises(NotImplementedError, match=message):
        torch.vmap(function)(torch.stack([problem.leaves[leaf]] * 2))


@one_of_each
def test_activation_checkpointing_keeps_results_and_gradients(name: str) -> None:
    def checkpointed(problem: Problem) -> tuple[Tensor, ...]:
        names = list(problem.leaves)

        def function(*tensors: Tensor) -> tuple[Tensor, ...]:
            return native(replace(problem, leaves=dict(zip(names, tensors, strict=True))))

        return checkpoint(function, *problem.leaves.values(), use_reentrant=False)

    problem = PROBLEMS[name]()
    assert_same(evaluate(problem, checkpointed), evaluate(problem))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@one_of_each
def test_without_gradients_the_result_is_the_same(name: str, mode: Callable[[], Any]) -> None:
    problem = PROBLEMS[name]()
    expected = evaluate(problem)
    with mode():
        results = native(problem)
    for i, out in enumerate(results):
        assert not out.requires_grad
        assert torch.equal(out, expected[f"out{i}"])


@one_of_each
def test_results_without_data_are_on_the_device_of_the_tokens(name: str) -> None:
    """What the compiler and `torch.device("meta")` rely on, and no GPU needs to be there for it."""
    problem = PROBLEMS[name](dtype=torch.bfloat16)
    with Recorder() as recorder:
        evaluate(problem)
    assert [str(operator) for operator, _ in recorder.calls] == [
        f"vtfast.{problem.operation.name}.default",
        f"vtfast.{problem.operation.name}_backward.default",
    ]
    for operator, arguments in recorder.calls:
        expected = operator(*arguments)
        with FakeTensorMode() as mode:
            fake = [
                torch.empty_like(mode.from_tensor(a), device="cuda") if isinstance(a, Tensor) else a for a in arguments
            ]
            results = operator(*fake)
        pairs = list(
            zip(
                [results] if isinstance(results, Tensor) else results,
                [expected] if isinstance(expected, Tensor) else expected,
                strict=True,
            )
        )
        assert {out.device.type for out, _ in pairs} == {"cuda"}
        assert all((out.shape, out.dtype) == (real.shape, real.dtype) for out, real in pairs)
