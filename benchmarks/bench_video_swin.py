"""swin3d_t on a clip of 16 x 224 x 224, under pytest-benchmark: torchvision's model against vtfast's."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from vtfast.bench.measure import NotSupportedError, relative_error
from vtfast.bench.shapes import SWIN3D_T
from vtfast.bench.subjects.models import TOLERANCES, case_of


@pytest.mark.parametrize("way", ["eager", "vtfast", "linear layers"])
@pytest.mark.parametrize(("dtype", "mode"), TOLERANCES)
def test_swin3d_t(benchmark: BenchmarkFixture, dtype: str, mode: str, way: str) -> None:
    benchmark.group = f"{dtype}, {mode}"
    case = case_of(SWIN3D_T, dtype, mode, ("eager", "vtfast"))
    try:
        made = next(candidate for candidate in case.ways() if candidate.name == way)
    except NotSupportedError as error:
        pytest.skip(str(error))
    returned = benchmark(made.run)
    if made.outputs is None:
        return
    assert case.reference is not None
    for value, right in zip(made.outputs(returned), case.reference(), strict=True):
        assert relative_error(value, right) <= TOLERANCES[dtype, mode]
