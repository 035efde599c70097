import torch
from torch import nn

from vtfast.layers import StochasticDepth, residual_add, residual_add_norm


def test_add_and_norm() -> None:
    x, branch, norm = torch.randn(3, 5, 8), torch.randn(3, 5, 8), nn.LayerNorm(8)
    keep = StochasticDepth(0.0)
    total, normed = residual_add_norm(x, branch, keep, norm)
    assert torch.equal(total, x + branch)
    assert torch.equal(total, residual_add(x, branch, keep))
    torch.testing.assert_close(normed, norm(x + branch))


def test_a_dropped_branch_leaves_the_sample() -> None:
    x, branch = torch.randn(64, 8), torch.randn(64, 8)
    total = residual_add(x, branch, StochasticDepth(0.5))
    dropped = (total == x).all(dim=1)
    assert 0 < dropped.sum() < 64
    torch.testing.assert_close(total[~dropped], (x + 2 * branch)[~dropped])
