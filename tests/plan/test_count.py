"""The rules of the cost model against sizes worked out by hand and against the sizes of the benchmarks."""

from collections.abc import Callable
from math import prod

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import vtfast
from vtfast.bench.shapes import (
    DIVIDED,
    JOINT,
    MVIT_V1_B_BLOCKS,
    SPARSE_AND_AXIAL,
    SWIN3D_T_STAGES,
    ConvolutionShape,
    SpaceTimeShape,
)
from vtfast.plan import Cost, count
from vtfast.plan.geometry import attending_pairs, taps_inside, tokens_covered

pytestmark = pytest.mark.requires_native


def _cost(run: Callable[[], Tensor], name: str, backward: bool = False) -> Cost:
    """Of the calls of one operator of vtfast and its backward, on fake tensors if `run` makes them."""

    def work() -> None:
        out = run()
        if backward:
            out.backward(torch.empty_like(out))

    return Cost(tuple(call for call in count(work).calls if call.name.startswith(f"vtfast::{name}")))


@pytest.mark.parametrize("backward", [False, True])
def test_a_shifted_window_costs_what_the_benchmarks_say(fake: None, backward: bool) -> None:
    shape = SWIN3D_T_STAGES[1].shifted()
    qkv = torch.empty(1, *shape.grid, 3 * shape.channels, requires_grad=backward)
    table = torch.empty(shape.table_shape)
    cost = _cost(
        lambda: vtfast.ops.window_attention(
            qkv, num_heads=shape.num_heads, window=shape.window, shift=shape.shift, bias_table=table
        ),
        "grid_attention",
        backward,
    )
    assert cost.flops == (7 if backward else 2) * shape.product_flops
    assert cost.exps == (2 if backward else 1) * shape.num_tokens * shape.group_size * shape.num_heads
    tables = (3 if backward else 1) * table.numel()
    assert cost.bytes == 4 * ((11 if backward else 4) * shape.num_tokens * shape.channels + tables)


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("shape", [*DIVIDED[:2], JOINT, *SPARSE_AND_AXIAL], ids=lambda shape: shape.name)
def test_attention_over_space_and_time_costs_what_the_benchmarks_say(
    fake: None, shape: SpaceTimeShape, backward: bool
) -> None:
    tokens = 1 + prod(shape.grid)
    qkv = torch.empty(1, tokens, 3 * shape.channels, dtype=torch.bfloat16, requires_grad=backward)
    prefix = "none" if not shape.has_cls else "global" if shape.scheme == "joint" else "mean"
    cost = _cost(
        lambda: vtfast.ops.grid_attention(
            qkv, shape.grid, num_heads=shape.num_heads, block=shape.block,
            dilation=[1, shape.dilation, shape.dilation] if shape.scheme != "global" else [2, 2, 2],
            num_prefix=1, prefix_keys=shape.has_cls, prefix_queries=prefix,
        ),
        "grid_attention",
        backward,
    )  # fmt: skip
    assert cost.flops == (7 if backward else 2) * shape.product_flops
    assert cost.exps == (2 if backward else 1) * shape.num_scores
    assert cost.bytes == shape.fewest_bytes(2, backward)
    assert {call.dtype for call in cost.calls} == {"bfloat16"}


@pytest.mark.parametrize("backward", [False, True])
def test_pooling_attention_costs_what_the_benchmarks_say(fake: None, backward: bool) -> None:
    shape = MVIT_V1_B_BLOCKS[1]
    q = torch.empty(1, shape.num_queries, shape.channels, requires_grad=backward)
    k, v = (torch.empty(1, shape.num_keys, shape.channels, requires_grad=backward) for _ in range(2))
    cost = _cost(
        lambda: vtfast.ops.pooling_attention(
            q, k, v, shape.q_grid, shape.k_grid, num_heads=shape.num_heads, num_prefix=1
        ),
        "pooling_attention",
        backward,
    )
    assert cost.flops == (7 if backward else 2) * shape.product_flops
    assert cost.exps == (2 if backward else 1) * shape.num_scores
    assert cost.bytes == shape.fewest_bytes(4, backward)


@pytest.mark.parametrize("backward", [False, True])
def test_a_depthwise_convolution_costs_what_the_benchmarks_say(fake: None, backward: bool) -> None:
    shape = ConvolutionShape("", (8, 14, 14), 320, (5, 5, 5))
    x = torch.empty(1, *shape.grid, shape.channels, requires_grad=backward)
    weight = torch.empty(shape.channels, 1, *shape.kernel, requires_grad=backward)
    cost = _cost(lambda: vtfast.ops.depthwise_conv3d(x, weight), "depthwise_conv3d", backward)
    assert cost.flops == (3 if backward else 1) * shape.flops
    weights = (3 if backward else 1) * weight.numel()
    # torch also gives the gradient of the bias a place, which is empty here.
    assert cost.bytes == shape.fewest_bytes(4, backward) + 4 * weights


def test_pooling_and_rotary_embedding_by_hand(fake: None) -> None:
    x = torch.empty(2, 1 + 4 * 6 * 6, 2 * 8)
    weight, norm = torch.empty(8, 1, 3, 3, 3), torch.empty(8)
    cost = _cost(
        lambda: vtfast.ops.pool_tokens(
            x, (4, 6, 6), kernel=3, stride=(1, 2, 2), weight=weight, norm_weight=norm, norm_bias=norm,
            num_heads=2, num_prefix=1,
        ),
        "pool_tokens",
    )  # fmt: skip
    taps = (2 + 3 + 3 + 2) * (2 + 3 + 3) ** 2
    assert cost.flops == 2 * 2 * 16 * taps
    assert cost.bytes == 4 * (x.numel() + weight.numel() + 2 * 8 + 2 * (1 + 4 * 3 * 3) * 16)

    qkv, table = torch.empty(2, 4 * 6 * 6, 3 * 16), torch.empty(4, 6, 6, 4)
    cost = _cost(lambda: vtfast.ops.rotary_embedding(qkv, (4, 6, 6), table, table, num_heads=2), "rotary_embedding")
    assert cost.flops == 3 * 2 * 2 * 144 * 2 * 4
    assert cost.bytes == 4 * (2 * qkv.numel() + 2 * table.numel())


def test_groups_that_do_not_divide_the_grid() -> None:
    swin = ((5, 1, 1), (4, 1, 1), (1, 1, 1), (0, 0, 0))
    assert attending_pairs(*swin, True, 0, True, "none") == 5 * 4  # every token attends to 4 slots, padding included
    assert attending_pairs(*swin, False, 0, True, "none") == 4 * 4 + 1
    rolled = ((5, 1, 1), (4, 1, 1), (1, 1, 1), (2, 0, 0))
    assert attending_pairs(*rolled, False, 0, True, "none") == 3 * 3 + 2 * 2  # 2 3 4 . | . . 0 1
    dilated = ((5, 1, 1), (2, 1, 1), (2, 1, 1), (0, 0, 0))
    assert attending_pairs(*dilated, False, 0, True, "none") == 2 * 2 + 2 * 2 + 1  # 0 2 | 1 3 | 4
    assert attending_pairs(*swin, False, 2, True, "none") == 17 + 5 * 2
    assert attending_pairs(*swin, False, 2, True, "mean") == 17 + 5 * 2 + 2 * (5 + 2 * 2)
    assert attending_pairs(*swin, False, 2, True, "global") == 17 + 5 * 2 + 2 * 7


def test_taps_inside_a_grid() -> None:
    assert taps_inside((4, 1, 1), (3, 1, 1), (1, 1, 1), (1, 0, 0)) == (4, 2 + 3 + 3 + 2)
    assert taps_inside((5, 1, 1), (3, 1, 1), (2, 1, 1), (0, 0, 0)) == (2, 6)


def test_operators_of_torch() -> None:
    a, b = torch.ones(3, 4), torch.ones(4, 5)

    def work() -> None:
        with torch.inference_mode():
            F.gelu(torch.matmul(a, b)).t().contiguous().view(15).zero_()
            F.conv3d(torch.ones(1, 4, 2, 2, 2), torch.ones(4, 2, 1, 1, 1), groups=2)

    rows = {row.name: row for row in count(work).operators}
    assert rows["aten::mm"].flops == 2 * 3 * 4 * 5
    assert rows["aten::mm"].bytes == 4 * (12 + 20 + 15)
    assert (rows["aten::gelu"].exps, rows["aten::gelu"].bytes) == (15, 4 * 30)
    assert rows["aten::zero_"].bytes == 4 * 15  # written, not read
    assert rows["aten::convolution"].flops == 2 * 32 * 2
    assert "aten::view" not in rows
    assert "aten::t" not in rows


def test_an_expanded_tensor_is_read_once() -> None:
    row = torch.ones(1, 64)
    (call,) = count(lambda: row.expand(1000, 64) * 2.0).calls
    assert (call.read, call.written) == (4 * 64, 4 * 64000)


def test_a_pooling_reads_what_its_windows_cover(fake: None) -> None:
    assert tokens_covered((8, 8, 8), (3, 3, 3), (1, 8, 8), (1, 1, 1)) == 8 * 2 * 2
    qkv, pool = torch.empty(1, 512, 3 * 16), vtfast.reference.TokenPool((3, 3, 3), (1, 8, 8), mode="max")
    cost = _cost(lambda: vtfast.ops.pool_qkv(qkv, (8, 8, 8), num_heads=2, k=pool, v=pool)[1], "pool_qkv")
    assert cost.bytes == 4 * 16 * (512 + 2 * 32 + 512 + 2 * 8)
