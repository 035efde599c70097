import pytest
import torch
from torch import nn

from vtfast.bench.measure import Effort, NotSupportedError, relative_error, run_case
from vtfast.bench.peers import pooling as pooling_peers
from vtfast.bench.peers.grid_attention import MODES
from vtfast.bench.peers.pooling import (
    ATTENTION,
    CORE,
    POOLING,
    SKIP,
    WORKS,
    Inputs,
    pooling_ways,
    reference_outputs,
)
from vtfast.bench.shapes import MVIT_V1_B_BLOCKS, MVIT_V2_S_BLOCKS, PoolingShape
from vtfast.bench.subjects import pooling_attention, token_pooling
from vtfast.bench.upstreams.upstream import torchvision_video

SHAPES = [
    PoolingShape("v1", (2, 4, 6), 2, None, (1, 2, 2), relative=False, head_dim=8, batch=2),
    PoolingShape("v1-stage", (2, 4, 6), 1, (1, 2, 2), (1, 4, 4), relative=False, head_dim=8),
    PoolingShape("v2", (2, 4, 6), 2, (1, 1, 1), (1, 2, 2), head_dim=8, batch=2),
    PoolingShape("v2-stage", (3, 5, 6), 2, (1, 2, 2), (1, 1, 1), head_dim=8),
]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)


@pytest.mark.parametrize(
    ("work", "name"),
    [
        pytest.param(work, name, marks=[pytest.mark.requires_native] * (name == "vtfast"))
        for work, functions in WORKS.items()
        for name in functions
    ],
)
@pytest.mark.parametrize("mode", MODES)
@every_shape
def test_every_peer_computes_the_reference(shape, mode, work, name):
    if work == SKIP and shape.q_grid == shape.grid:
        pytest.skip("nothing to pool")
    if name == "FlexAttention" and mode != "forward":
        pytest.skip("has no backward on the CPU")
    (way,) = pooling_ways(shape, work, torch.float32, mode, (name,))
    reference = reference_outputs(shape, work, torch.float32, mode)
    inputs = Inputs.make(shape, work, torch.float32, requires_grad=False)
    assert len(reference) == len(inputs.grads_out) + (0 if mode == "forward" else len(inputs.tensors))
    for value, right in zip(way.outputs(way.run()), reference, strict=True):
        assert relative_error(value, right) < 1e-4


@pytest.mark.parametrize("work", WORKS)
def test_the_reference_is_the_same_clip_by_clip(work, monkeypatch):
    whole = reference_outputs(SHAPES[2], work, torch.float32, MODES[1])
    monkeypatch.setattr(pooling_peers, "MOST_SCORES", 1)
    for value, right in zip(reference_outputs(SHAPES[2], work, torch.float32, MODES[1]), whole, strict=True):
        assert relative_error(value, right) < 1e-12


@every_shape
def test_eager_is_what_torchvision_does(shape):
    try:
        mvit = torchvision_video().mvit
    except NotSupportedError as error:
        pytest.skip(str(error))
    inputs = Inputs.make(shape, ATTENTION, torch.float32, requires_grad=False)
    theirs = mvit.MultiscaleAttention(
        list(shape.grid),
        shape.channels,
        shape.channels,
        shape.num_heads,
        [] if shape.q_stride is None else [3, 3, 3],
        [3, 3, 3],
        list(shape.q_stride or ()),
        list(shape.kv_stride),
        residual_pool=shape.relative,
        residual_with_cls_embed=False,
        rel_pos_embed=shape.relative,
        norm_layer=lambda dim: nn.LayerNorm(dim, eps=1e-6),
    )
    theirs.qkv = theirs.project = nn.Identity()
    weights = {}
    for name, tensor in inputs.tensors.items():
        if name.endswith("_weight"):
            weights[f"pool_{name[0]}.pool.weight"] = tensor
        elif name.endswith("_norm"):
            weights |= {
                f"pool_{name[0]}.norm_act.0.{key}": x for key, x in zip(("weight", "bias"), tensor, strict=True)
            }
        elif name.startswith("rel_pos"):
            setattr(theirs, name, nn.Parameter(tensor))  # its own is for a square
            weights[name] = tensor
    theirs.load_state_dict(weights)
    (way,) = pooling_ways(shape, ATTENTION, torch.float32, "forward", ("eager",))
    out, grid = theirs(inputs.tensors["qkv"], shape.grid)
    assert grid == shape.q_grid
    assert relative_error(way.run()[0], out) < 1e-5


def test_sizes_are_those_of_the_models():
    """Queries and keys, cls included."""
    tokens = [
        (1 + torch.Size(shape.q_grid).numel(), 1 + torch.Size(shape.k_grid).numel())
        for shape in (*MVIT_V1_B_BLOCKS, *MVIT_V2_S_BLOCKS)
    ]
    assert tokens == [
        (25089, 393), (6273, 1569), (1569, 1569),
        (25089, 393), (6273, 1569), (1569, 1569), (1569, 393), (393, 1569),
    ]  # fmt: skip


def covered(grid, stride):
    """Tokens that have a part in what windows of 3 x 3 x 3 sum up."""
    x = torch.zeros(1, *grid, requires_grad=True)
    (gradient,) = torch.autograd.grad(nn.functional.conv3d(x, torch.ones(1, 1, 3, 3, 3), None, stride, 1).sum(), x)
    return int(gradient.count_nonzero())


@every_shape
@pytest.mark.parametrize("mode", MODES)
def test_bytes_are_those_of_the_tensors(shape, mode):
    for work in (POOLING, SKIP):
        inputs = Inputs.make(shape, work, torch.bfloat16, requires_grad=False)
        tokens = next(iter(inputs.tensors.values())).nbytes
        results = sum(grad.nbytes for grad in inputs.grads_out)
        read = tokens
        if work == POOLING:
            rows = sum(1 + covered(shape.grid, stride) for stride in [shape.q_stride or 1, *[shape.kv_stride] * 2])
            read = rows * shape.batch * shape.channels * 2
        expected = read + results if mode == "forward" else 2 * read + tokens + 2 * results
        assert token_pooling.fewest_bytes(shape, work, torch.bfloat16, mode) == expected
    inputs = Inputs.make(shape, CORE, torch.bfloat16, requires_grad=False)
    tokens, results = sum(inputs.tensors[part].nbytes for part in "qkv"), inputs.grads_out[0].nbytes
    backward = mode != "forward"
    assert shape.fewest_bytes(2, backward) == (3 * tokens + 2 * results if backward else tokens + results)


@pytest.mark.requires_native
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mode", MODES)
def test_rows_of_the_suites_agree(mode, dtype):
    """With the tolerances of the suites, at small sizes."""
    for case in (
        pooling_attention.case_of(SHAPES[3], dtype, mode, ("eager", "SDPA", "vtfast")),
        token_pooling.case_of(POOLING, SHAPES[3], dtype, mode, ("eager", "vtfast")),
        token_pooling.case_of(SKIP, SHAPES[3], dtype, mode, ("eager", "vtfast")),
    ):
        results = run_case(case, Effort(0.0, 1, 1))
        assert all(result.agrees is not False for result in results), case.name
        assert [result.way for result in results if result.agrees][-1] == "vtfast"
