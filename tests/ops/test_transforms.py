"""What PyTorch does to operations: opcheck, compile, export, autocast, vmap, activation checkpointing.

DistributedDataParallel runs in tests/models, around a model whose bias tables and projections are reached through here.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from attention_check import evaluate, make_problem, native, needs_float64
from target import DEVICE, EMULATED
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from vtfast import ops

pytestmark = [pytest.mark.requires_native, pytest.mark.every_device]
compiles = pytest.mark.skipif(EMULATED, reason="the compiler sees the same operator as on the CPU")

OPERATOR_CASES: dict[str, dict[str, Any]] = {
    "windows": {"shift": (1, 0, 1)},
    "plain": {"bias": False, "pad": False},
    "prefix-keys": {"num_prefix": 2},
    "prefix-global": {"num_prefix": 2, "prefix_queries": "global"},
    "prefix-mean": {"num_prefix": 2, "prefix_queries": "mean", "dilation": (1, 1, 2)},
    "masked": {"key_mask": torch.tensor([[True, False, True, True] * 6] * 2)},
    "bfloat16": {"dtype": torch.bfloat16, "bias_dtype": torch.float32},
    "float16": {"dtype": torch.float16, "bias_dtype": torch.float32},
    "float64": {"dtype": torch.float64},
}


@pytest.mark.parametrize("requires_grad", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=needs_float64 if case == "float64" else ()) for case in OPERATOR_CASES]
)
def test_opcheck(case: str, requires_grad: bool) -> None:
    problem = make_problem((2, 3, 4), (2, 2, 3), **OPERATOR_CASES[case])
    tensors = [
        None if tensor is None else tensor.requires_grad_(requires_grad)
        for tensor in (problem.qkv, problem.bias_table, problem.pad_qkv)
    ]
    settings = problem.settings
    queries = ("none", "global", "mean").index(settings.get("prefix_queries", "none"))
    arguments = (
        *tensors,
        problem.key_mask,
        *(settings["grid"], settings["num_heads"], settings["block"], settings.get("dilation", (1, 1, 1))),
        *(settings.get("shift", (0, 0, 0)), settings["block"], False, settings.get("pad_keys", True)),
        *(settings.get("num_prefix", 0), True, queries, 0.35),
    )
    torch.library.opcheck(torch.ops.vtfast.grid_attention.default, arguments)


class Attention(nn.Module):
    """Projection, shifted windows with a bias table, and their padding."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 48)
        self.table = nn.Parameter(torch.randn(3 * 5 * 5, 2))

    def forward(self, x: Tensor) -> Tensor:  # [B, T, H, W, 16] -> the same
        return ops.grid_attention(
            self.qkv(x), x.shape[1:4], num_heads=2, block=(2, 3, 3), shift=(1, 1, 1), bias_table=self.table,
            pad_qkv=self.qkv.bias,
        )  # fmt: skip


class ClassTokenAttention(nn.Module):
    """A class token before the grid's, attending in every group, and a key mask."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 48))

    def forward(self, x: Tensor, key_mask: Tensor) -> Tensor:  # [B, T, H, W, 48], [B, T, H, W]
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), x.flatten(1, 3)], dim=1)
        return ops.grid_attention(
            tokens, x.shape[1:4], num_heads=2, block=(1, 2, 2), num_prefix=1, prefix_queries="mean", key_mask=key_mask
        )


SIZES = [(2, 4, 6, 7), (3, 5, 8, 9), (4, 7, 10, 6)]


@compiles
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_once_for_all_sizes_with_the_same_gradients(backend: str) -> None:
    counter, module = CompileCounterWithBackend(backend), Attention().to(DEVICE)
    compiled = torch.compile(module, backend=counter, fullgraph=True, dynamic=True)
    for size in SIZES:
        x = torch.randn(*size, 16, device=DEVICE, requires_grad=True)
        leaves, results = [x, *module.parameters()], []
        for function in (module, compiled):
            out = function(x)
            results.append((out, torch.autograd.grad(out.square().sum(), leaves)))
        torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)
    assert counter.frame_count == 1


@compiles
@pytest.mark.usefixtures("fresh_compiler")
def test_a_class_token_and_a_mask_compiled_once_for_all_sizes() -> None:
    counter, module = CompileCounterWithBackend("aot_eager"), ClassTokenAttention().to(DEVICE)
    compiled = torch.compile(module, backend=counter, fullgraph=True, dynamic=True)
    for size in SIZES:
        x, key_mask = torch.randn(*size, 48, device=DEVICE), torch.rand(size, device=DEVICE) > 0.3
        torch.testing.assert_close(compiled(x, key_mask), module(x, key_mask))
    assert counter.frame_count == 1


@compiles
def test_export_with_dynamic_sizes() -> None:
    module, dim = ClassTokenAttention().to(DEVICE), torch.export.Dim
    shape = {0: dim("batch", min=1), 1: dim("t", min=2), 2: dim("h", min=2), 3: dim("w", min=2)}
    example = (torch.randn(2, 4, 6, 8, 48, device=DEVICE), torch.ones(2, 4, 6, 8, dtype=torch.bool, device=DEVICE))
    program = torch.export.export(module, example, dynamic_shapes=(shape, shape))
    for size in ((1, 5, 7, 9), (3, 2, 2, 2)):
        x, key_mask = torch.randn(*size, 48, device=DEVICE), torch.rand(size, device=DEVICE) > 0.3
        torch.testing.assert_close(program.module()(x, key_mask), module(x, key_mask))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_follows_the_users_dtype_and_leaves_the_table_alone(dtype: torch.dtype) -> None:
    problem = make_problem((3, 4, 5), (2, 2, 2), shift=(1, 1, 1))
    cast = replace(
        problem,
        qkv=problem.qkv.to(dtype),
        pad_qkv=problem.pad_qkv.to(dtype),
        grad_out=problem.grad_out.to(dtype),
    )
    expected = evaluate(native, cast)
    with torch.autocast(DEVICE.type, dtype):
        results = evaluate(native, problem)
    assert results["out"].dtype == dtype
    for name in ("d_qkv", "d_bias_table", "d_pad_qkv"):
        assert results[name].dtype == torch.float32
    for name, result in results.items():
        torch.testing.assert_close(result, expected[name].to(result.dtype), rtol=0, atol=0)


@needs_float64
def test_autocast_leaves_float64_alone() -> None:
    problem = make_problem((3, 4, 5), (2, 2, 2), dtype=torch.float64)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        assert native(**problem.leaves(), **problem.settings).dtype == torch.float64


@compiles
@pytest.mark.usefixtures("fresh_compiler")
def test_autocast_inside_a_compiled_function() -> None:
    module, x = Attention().to(DEVICE), torch.randn(2, 4, 6, 7, 16, device=DEVICE)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        out, expected = compiled(x), module(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("in_dim", [0, 1, 2])
def test_vmap_over_the_tokens(in_dim: int) -> None:
    problem = make_problem((3, 4, 5), (2, 2, 2), num_prefix=1, prefix_queries="mean")
    stacked = torch.randn(4, *problem.qkv.shape, device=DEVICE)
    shared = {"bias_table": problem.bias_table, "pad_qkv": problem.pad_qkv, **problem.settings}
    expected = torch.stack([native(qkv=qkv, **shared) for qkv in stacked])
    mapped = torch.vmap(lambda qkv: native(qkv=qkv, **shared), in_dims=in_dim)(stacked.movedim(0, in_dim))
    assert torch.equal(mapped, expected)


def test_vmap_over_tokens_and_mask() -> None:
    qkv, key_mask = torch.randn(3, 2, 24, 48, device=DEVICE), torch.rand(3, 2, 24, device=DEVICE) > 0.3

    def attention(qkv: Tensor, key_mask: Tensor) -> Tensor:
        return ops.grid_attention(qkv, (2, 3, 4), num_heads=2, block=(1, 3, 2), key_mask=key_mask)

    expected = torch.stack([attention(*pair) for pair in zip(qkv, key_mask, strict=True)])
    assert torch.equal(torch.vmap(attention)(qkv, key_mask), expected)
    masks_only = torch.vmap(attention, in_dims=(None, 0))(qkv[0], key_mask)
    assert torch.equal(masks_only, torch.stack([attention(qkv[0], mask) for mask in key_mask]))


def test_vmap_over_the_table_says_that_it_cannot() -> None:
    qkv, tables = torch.randn(2, 24, 48, device=DEVICE), torch.randn(3, 15, 2, device=DEVICE)

    def attention(table: Tensor) -> Tensor:
        return ops.grid_attention(qkv, (2, 3, 4), num_heads=2, block=(1, 3, 2), bias_table=table)

    with pytest.raises(NotImplementedError, match="vmap over bias_table or pad_qkv is not supported"):
        torch.vmap(attention)(tables)


def test_activation_checkpointing_keeps_result_and_gradients() -> None:
    problem = make_problem((3, 4, 5), (2, 2, 2), num_prefix=1, prefix_queries="global")

    def checkpointed(**arguments: Any) -> Tensor:
        return checkpoint(native, use_reentrant=False, **arguments)

    torch.testing.assert_close(evaluate(checkpointed, problem), evaluate(native, problem), rtol=0, atol=0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_the_result_is_the_same(mode: Callable[[], Any]) -> None:
    problem = make_problem((3, 4, 5), (2, 2, 2), num_prefix=1, prefix_queries="global")
    expected = evaluate(native, problem)["out"]
    with mode():
        out = native(**problem.leaves(), **problem.settings)
    assert not out.requires_grad
    assert torch.equal(out, expected)


def test_results_without_data_are_on_the_device_of_the_tokens() -> None:
    """What the compiler and `torch.device("meta")` rely on, and no GPU needs to be there for it."""
    with FakeTensorMode():
        qkv = torch.empty(2, 25, 48, device="cuda", dtype=torch.bfloat16)
        sizes = ((2, 3, 4), 2, (2, 2, 3), (1, 1, 1), (0, 0, 0), (2, 2, 3), False, True, 1, True, 1, 0.35)
        table, pad = torch.empty(45, 2, device="cuda"), torch.empty(48, device="cuda", dtype=torch.bfloat16)
        results = torch.ops.vtfast.grid_attention.default(qkv, table, pad, None, *sizes)
        gradients = torch.ops.vtfast.grid_attention_backward.default(
            results[0], qkv, table, pad, None, *results[1:], *sizes
        )
    assert {tensor.device.type for tensor in (*results, *gradients)} == {"cuda"}
    assert [tuple(tensor.shape) for tensor in results] == [(2, 25, 16), (2, 2, 24), (2, 1, 2, 1)]
    assert [tensor.shape for tensor in gradients] == [qkv.shape, table.shape, pad.shape]
