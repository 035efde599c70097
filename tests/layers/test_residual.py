import pytest
import torch
from torch import Tensor

from vtfast.layers import StochasticDepth, add_branch, residual_add


@pytest.mark.parametrize(("rate", "training"), [(0.0, True), (0.9, False)])
def test_is_the_sum_without_rate_or_in_evaluation(rate: float, training: bool) -> None:
    x, branch = torch.randn(3, 5, 8), torch.randn(3, 5, 8)
    assert torch.equal(residual_add(x, branch, StochasticDepth(rate).train(training)), x + branch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_dropped_branch_leaves_the_sample(dtype: torch.dtype) -> None:
    x, branch = torch.randn(64, 8), torch.randn(64, 8, dtype=dtype)
    total = residual_add(x, branch, StochasticDepth(0.5))
    assert total.dtype == torch.float32
    dropped = (total == x).all(dim=1)
    assert 0 < dropped.sum() < 64
    torch.testing.assert_close(total[~dropped], (x + 2 * branch)[~dropped])


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_branch_adds_the_residual_itself_unless_it_may_be_dropped(rate: float) -> None:
    x, calls = torch.randn(3, 8), []

    def branch(normed: Tensor, residual: Tensor | None = None) -> Tensor:
        calls.append(residual)
        return 2 * normed if residual is None else 2 * normed + residual

    total = add_branch(x, branch, x + 1, StochasticDepth(rate))
    torch.testing.assert_close(total, x if rate else 3 * x + 2)
    assert len(calls) == 1
    assert calls[0] is (None if rate else x)


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_layer_scale(rate: float) -> None:
    """A factor for each channel of the branch, under stochastic depth too; the residual is added to the product."""
    x, branch, scale = torch.randn(64, 5, 8), torch.randn(64, 5, 8), torch.randn(8)
    total = add_branch(x, lambda normed: branch, x, StochasticDepth(rate), scale)
    dropped = (total == x).flatten(1).all(dim=1)
    assert (0 < dropped.sum() < 64) == (rate > 0)
    torch.testing.assert_close(total[~dropped], (x + branch * scale / (1 - rate))[~dropped])
