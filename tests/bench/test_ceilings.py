"""The yardsticks that figures are put against."""

from functools import partial

import pytest

from vtfast import _library
from vtfast.bench import ceilings
from vtfast.bench.measure import Effort


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "_ARGUMENTS", 64)
    monkeypatch.setattr(ceilings, "gemm", partial(ceilings.gemm, size=16))
    monkeypatch.setattr(ceilings, "copy", partial(ceilings.copy, size=1024))


@pytest.mark.requires_native
def test_exponentials_are_counted_by_the_kernels_that_are_loaded() -> None:
    way = ceilings.exp()
    assert way is not None
    assert way.flops == 64 * ceilings._ROUNDS
    assert way.run().div(ceilings._ROUNDS).log().std() > 0.5  # of standard normal numbers
    assert 1e7 < ceilings.rates(effort=Effort(seconds=0.01))["exp"] < 1e13


def test_without_kernels_there_is_no_ceiling_of_exponentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_library, "why_unavailable", lambda *device: "none was built")
    assert ceilings.exp() is None
    found = ceilings.rates(effort=Effort(seconds=0.01))
    assert set(found) - {"GEMM bfloat16 without AMX"} == {"GEMM float32", "GEMM bfloat16", "copy"}
