import pytest
import torch

from vtfast.layers import StochasticDepth
from vtfast.layers.stochastic_depth import PositionStochasticDepth


def test_drops_whole_samples_at_its_rate_and_keeps_the_mean() -> None:
    x = torch.rand(20_000, 2, 3) + 0.5
    out = StochasticDepth(0.3)(x)
    dropped = (out == 0).flatten(1).all(dim=1)
    torch.testing.assert_close(out[~dropped], x[~dropped] / 0.7)
    # Five standard deviations of a mean of 20,000 draws.
    assert abs(dropped.float().mean().item() - 0.3) < 5 * (0.3 * 0.7 / 20_000) ** 0.5


@pytest.mark.parametrize(("rate", "training"), [(0.0, True), (0.9, False)])
def test_is_the_identity_without_rate_or_in_evaluation(rate: float, training: bool) -> None:
    x = torch.randn(4, 3)
    assert StochasticDepth(rate).train(training)(x) is x


def test_rate_one_drops_everything() -> None:
    assert torch.equal(StochasticDepth(1.0)(torch.ones(4, 3)), torch.zeros(4, 3))


def test_keeps_the_dtype() -> None:
    assert StochasticDepth(0.5)(torch.ones(4, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_rejects_rate(rate: float) -> None:
    with pytest.raises(ValueError, match=f"rate must be between 0 and 1, got {rate}"):
        StochasticDepth(rate)


def test_drops_positions_of_all_samples_at_once() -> None:
    x = torch.rand(3, 2, 400, 5) + 0.5
    out = PositionStochasticDepth(0.3)(x)
    dropped = (out == 0).all(dim=-1)
    assert 0.2 < dropped.float().mean() < 0.4
    assert (dropped == dropped[0, 0]).all()
    torch.testing.assert_close(out[~dropped], x[~dropped] / 0.7)
