"""When a kernel's numbers are good enough: as good as those of plain PyTorch in the same dtype, give or take.

    error(kernel, exact) <= factor * error(plain, exact) + floor

`exact` is the reference in float64, `plain` the reference in the dtype of the kernel, and an error the largest absolute
difference. The factor is 2 for results and 3 for gradients. The floor is one rounding of the result and one of
what was summed for it: plain PyTorch may be exact by luck, or because a difference cancels to zero in its
order of operations.
"""

import torch
from torch import Tensor

FORWARD, BACKWARD = 2, 3


def accumulation_eps(dtype: torch.dtype) -> float:
    """Rounding unit of the sums of a kernel: float32, or float64 for float64."""
    return torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps


def assert_as_accurate(actual: Tensor, plain: Tensor, exact: Tensor, *, factor: int, terms: float, name: str) -> None:
    """Raises AssertionError where `actual` is farther from `exact` than the rule allows.

    Args:
        actual: the kernel's result.
        plain: the same-dtype reference's result.
        exact: the float64 reference's result.
        factor: FORWARD or BACKWARD.
        terms: size of what is summed for one element, cancelling terms included.
        name: what the message calls the tensor.
    """
    assert actual.shape == exact.shape, f"{name}: shape {tuple(actual.shape)}, wanted {tuple(exact.shape)}"
    assert actual.dtype == plain.dtype, f"{name}: dtype {actual.dtype}, wanted {plain.dtype}"
    representable = exact.to(actual.dtype)
    for what, test in (("NaN", torch.isnan), ("infinity", torch.isinf)):
        wrong = (test(actual) != test(representable)).nonzero()
        assert not len(wrong), f"{name}: {what} or its absence at {wrong[0].tolist()} and {len(wrong) - 1} more places"
    if actual.numel() == 0:
        return
    finite = representable.isfinite()
    exact = exact.masked_fill(~finite, 0)
    error = (actual.double().masked_fill(~finite, 0) - exact).abs()
    # Plain PyTorch may overflow where the kernel does not: infinitely wrong, no licence for the kernel.
    plain_error = (plain.double() - exact).abs().masked_fill(~(finite & plain.isfinite()), 0).max().item()
    # In float64 the exact result is no better than the kernel's, and both walk away from the truth.
    steps = 8 if actual.dtype == torch.float64 else 1
    floor = torch.finfo(actual.dtype).eps * exact.abs().max().item() + steps * accumulation_eps(actual.dtype) * terms
    worst = error.argmax()
    index = [int(i) for i in torch.unravel_index(worst, error.shape)]
    assert error.flatten()[worst].item() <= factor * plain_error + floor, (
        f"{name}: error {error.flatten()[worst].item():.3g} at {index}, where {exact.flatten()[worst].item():.6g} is "
        f"wanted and {actual.flatten()[worst].item():.6g} came; allowed {factor} x {plain_error:.3g}, the error of "
        f"plain PyTorch, + {floor:.3g}"
    )
