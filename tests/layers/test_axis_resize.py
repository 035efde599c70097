import pytest
import torch
import torch.nn.functional as F

from vtfast.layers.axis_resize import resize_axis
from vtfast.layers.separable_positions import separable_positions


@pytest.mark.parametrize("size", [1, 4, 5, 7, 31])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_is_linear_interpolation(size: int, dtype: torch.dtype) -> None:
    table = torch.randn(5, 3, dtype=dtype)
    exact = F.interpolate(table.double().T[None], size=size, mode="linear")[0].T
    resized = resize_axis(table, 0, size)
    assert resized.dtype == dtype
    torch.testing.assert_close(resized, exact.to(dtype))


def test_takes_any_axis() -> None:
    x = torch.randn(2, 4, 3, 5)
    for axis in (1, 2, -1):
        torch.testing.assert_close(resize_axis(x, axis, 6), resize_axis(x.movedim(axis, 0), 0, 6).movedim(0, axis))


def test_gradient_is_that_of_interpolation() -> None:
    table = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn(8, 3, dtype=torch.float64)
    expected = F.interpolate(table.T[None], size=8, mode="linear")[0].T
    (own,), (wanted,) = (torch.autograd.grad(out, table, cotangent) for out in (resize_axis(table, 0, 8), expected))
    torch.testing.assert_close(own, wanted)


def test_the_own_size_is_no_copy() -> None:
    table = torch.randn(5, 3)
    assert resize_axis(table, 0, 5) is table


def test_autocast_rounds_nothing() -> None:
    table = torch.randn(5, 3)
    with torch.autocast("cpu", torch.bfloat16):
        resized = resize_axis(table, 0, 8)
    assert torch.equal(resized, resize_axis(table, 0, 8))


@pytest.mark.parametrize("new", [(2, 3, 4), (4, 3, 4), (1, 6, 8), (3, 2, 7)], ids=str)
def test_separable_positions_are_their_sum_interpolated_trilinearly(new: tuple[int, int, int]) -> None:
    spatial, temporal = torch.randn(1, 12, 5, dtype=torch.float64), torch.randn(1, 2, 5, dtype=torch.float64)
    volume = spatial.view(1, 1, 3, 4, 5) + temporal.view(1, 2, 1, 1, 5)
    expected = F.interpolate(volume.permute(0, 4, 1, 2, 3), size=new, mode="trilinear").flatten(2).mT
    torch.testing.assert_close(separable_positions(spatial, temporal, (2, 3, 4), new), expected)
