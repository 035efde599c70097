"""The core of window attention at the sizes of swin3d_t, under pytest-benchmark.

For looking at one alternative while working on it. `vtfast bench` takes the ways in turns instead of one after
the other, and is what published figures come from.
"""

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from vtfast.bench.measure import NotSupportedError, relative_error
from vtfast.bench.peers.grid_attention import MODES, core_ways, reference_outputs
from vtfast.bench.shapes import SWIN3D_T_WINDOWS, WindowShape
from vtfast.bench.subjects.window_attention import TOLERANCES


@pytest.mark.parametrize("way", ["eager", "SDPA", "FlexAttention", "compile", "vtfast"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("shape", SWIN3D_T_WINDOWS, ids=lambda shape: shape.name)
def test_core(benchmark: BenchmarkFixture, shape: WindowShape, dtype: torch.dtype, mode: str, way: str) -> None:
    torch.compiler.reset()
    benchmark.group = f"{shape.name}, {dtype}, {mode}"
    (made,) = core_ways(shape, dtype, mode, (way,))
    try:
        returned = benchmark(made.run)
    except NotSupportedError as error:
        pytest.skip(str(error))
    assert made.outputs is not None
    reference = reference_outputs(shape, dtype, mode)
    for value, right, limit in zip(made.outputs(returned), reference, TOLERANCES[dtype], strict=False):
        assert relative_error(value, right) <= limit
