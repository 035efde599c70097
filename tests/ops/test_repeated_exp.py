"""The yardstick of exponentials: each round counts, and whatever the number of elements."""

import pytest
import torch

pytestmark = pytest.mark.requires_native


@pytest.mark.parametrize("size", [0, 1, 16, 33, 1000])
@pytest.mark.parametrize("rounds", [0, 1, 5])
def test_sums_as_many_exponentials_as_rounds(size: int, rounds: int) -> None:
    x = 20 * torch.randn(size, 2)[:, 0]  # [size], every other number
    torch.testing.assert_close(torch.ops.vtfast.repeated_exp(x, rounds), rounds * x.exp())


@pytest.mark.parametrize(
    ("x", "rounds", "message"),
    [(torch.ones(3).double(), 1, "x must be float32"), (torch.ones(3), -1, "rounds must be at least 0, got -1")],
)
def test_refuses_what_it_cannot_count(x: torch.Tensor, rounds: int, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        torch.ops.vtfast.repeated_exp(x, rounds)
