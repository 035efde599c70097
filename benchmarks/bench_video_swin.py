"""swin3d_t on a clip of 16 x 224 x 224, under pytest-benchmark: torchvision's model against vtfast's."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.measure import NotSupportedError, relative_error
from benchmarks.model_cases import TOLERANCES, model_cases
from benchmarks.scope import Scope
from benchmarks.shapes import SWIN3D_T
from benchmarks.upstream import TORCHVISION

_CASES = {case.name: case for case in model_cases(Scope(quick=False, threads=1, compile=False), SWIN3D_T, TORCHVISION)}


@pytest.mark.parametrize("way", ["eager", "vtfast", "linear layers"])
@pytest.mark.parametrize("work", _CASES)
def test_swin3d_t(benchmark: BenchmarkFixture, work: str, way: str) -> None:
    benchmark.group = work
    case = _CASES[work]
    try:
        made = next(candidate for candidate in case.ways() if candidate.name == way)
    except NotSupportedError as error:
        pytest.skip(str(error))
    returned = benchmark(made.run)
    if made.outputs is None:
        return
    assert case.reference is not None
    for value, right in zip(made.outputs(returned), case.reference(), strict=True):
        assert relative_error(value, right) <= TOLERANCES[work]
