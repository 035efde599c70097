import pytest
import torch

from vtfast.bench.measure import NotSupportedError, Way, relative_error
from vtfast.bench.peers.grid_attention import MODES, STARTS, core_ways, reference_outputs
from vtfast.bench.shapes import WindowShape

VTFAST = pytest.param("vtfast", marks=pytest.mark.requires_native)
ON_ANY_DEVICE = ["eager", "SDPA", "SDPA math"]
PLAIN = WindowShape("plain", (4, 6, 8), 2, window=(2, 3, 4), head_dim=8, batch=3)
SHIFTED = WindowShape("shifted", (4, 6, 8), 2, window=(2, 3, 4), shift=(1, 1, 2), head_dim=8, batch=3)
TIME = WindowShape("time", (4, 2, 3), 2, window=(4, 1, 1), head_dim=8, batch=3, bias=False)
SHAPES = pytest.mark.parametrize("shape", [PLAIN, SHIFTED, TIME], ids=lambda shape: shape.name)


def errors_of(way: Way, shape: WindowShape, mode: str) -> list[float]:
    reference = reference_outputs(shape, torch.float32, mode)
    return [relative_error(x, y) for x, y in zip(way.outputs(way.run()), reference, strict=True)]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", [*ON_ANY_DEVICE, VTFAST])
@pytest.mark.parametrize("mode", MODES)
@SHAPES
def test_every_peer_computes_the_reference(name, mode, shape, start):
    (way,) = core_ways(shape, torch.float32, mode, (name,), start)
    errors = errors_of(way, shape, mode)
    assert len(errors) == (1 if mode == "forward" else 2 + shape.bias)
    assert all(error < 1e-4 for error in errors)


@pytest.mark.parametrize("name", ["FlexAttention, bias", "FlexAttention, table"])
@SHAPES
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_computes_the_reference_forward(name, shape):
    (way,) = core_ways(shape, torch.float32, "forward", (name,), "packed")
    assert errors_of(way, shape, "forward")[0] < 1e-4


def test_a_prebuilt_tensor_has_no_backward():
    (way,) = core_ways(PLAIN, torch.float32, "forward + backward", ("FlexAttention",))
    with pytest.raises(NotSupportedError, match="gives the table no gradient"):
        way.run()


def test_a_backend_that_the_device_lacks_raises():
    (way,) = core_ways(PLAIN, torch.float32, "forward", ("SDPA cuDNN",), "packed")
    with pytest.raises(RuntimeError, match=r"No available kernel|No viable backend"):
        way.run()
