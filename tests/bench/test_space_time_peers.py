import pytest
import torch

from vtfast.bench.measure import relative_error
from vtfast.bench.peers.grid_attention import MODES
from vtfast.bench.peers.space_time import (
    ALONE,
    PACKED,
    Inputs,
    reference_outputs,
    sampled_rows,
    space_time_ways,
    time_fastest,
    time_slowest,
)
from vtfast.bench.shapes import SpaceTimeShape

VTFAST = pytest.param("vtfast", marks=pytest.mark.requires_native)
SCHEMES = ("time", "space", "joint", "width", "height", "local", "global")
SHAPES = [SpaceTimeShape(scheme, (4, 2, 6), num_heads=2, head_dim=8, batch=2) for scheme in SCHEMES]


@pytest.mark.parametrize("name", ["eager", f"eager{PACKED}", "SDPA", f"SDPA math{PACKED}", VTFAST])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.scheme)
def test_every_peer_computes_the_reference(name, mode, shape):
    (way,) = space_time_ways(shape, torch.float32, mode, (name,))
    reference = reference_outputs(shape, torch.float32, mode)
    assert len(reference) == (1 if mode == "forward" else 2)
    for value, right in zip(way.outputs(way.run()), reference, strict=True):
        assert relative_error(value, right) < 1e-4


@pytest.mark.parametrize("shape", SHAPES[:3], ids=lambda shape: shape.scheme)
def test_sampled_rows_are_those_of_the_reference(shape):
    (out,) = reference_outputs(shape, torch.float32, "forward")
    rows = range(out.shape[1])
    assert relative_error(sampled_rows(shape, torch.float32, rows), out) < 1e-12


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.scheme)
def test_scores_are_counted(shape):
    """The reference's softmaxes have as many elements."""
    counted = 0
    softmax = torch.Tensor.softmax

    def counting(x, *args, **kwargs):
        nonlocal counted
        counted += x.numel()
        return softmax(x, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "softmax", counting)
        reference_outputs(shape, torch.float32, "forward")
    assert counted == shape.num_scores


def test_the_attention_alone_is_a_yardstick():
    (way,) = space_time_ways(SHAPES[1], torch.float32, "forward + backward", (f"SDPA math{ALONE}",))
    out, *grads = way.run()
    assert out.shape == (8, 2, 13, 8)
    assert len(grads) == 3
    assert way.outputs is None


def test_orders_of_tokens():
    shape = SHAPES[1]
    x = Inputs.make(shape, torch.float32, requires_grad=False).qkv
    reordered = time_fastest(x, shape)
    assert torch.equal(reordered[:, 0], x[:, 0])
    assert torch.equal(reordered[:, 1 + 4 * 5 + 3], x[:, 1 + 12 * 3 + 5])
    assert torch.equal(time_slowest(reordered, shape), x)
