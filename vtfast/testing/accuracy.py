"""When an operation's numbers are good enough: as good as those of plain PyTorch in the same dtype, give or take.

    error(operation, exact) <= factor * error(plain, exact) + floor

`exact` is the reference in float64, `plain` the reference in the dtype of the operation, and an error the largest
absolute difference. The factor is 2 for results and 3 for gradients. The floor is one rounding of the result and one of
what was summed for it: plain PyTorch may be exact by luck, or because a difference cancels to zero in its
order of operations.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

FORWARD, BACKWARD = 2, 3


@dataclass(frozen=True)
class Accuracy:
    """How far a tensor is from the exact one, and how far it may be.

    Args:
        error: largest absolute difference; infinite where shape, dtype, NaN or infinities differ.
        plain_error: the same of plain PyTorch.
        allowed: largest error that the rule lets pass.
        index: of the element with the largest error, or of the first NaN or infinity out of place; None without one.
        wanted: what the exact tensor has there.
        came: what the tensor has there.
        fault: what is wrong; None if nothing is.
    """

    error: float
    plain_error: float
    allowed: float
    index: tuple[int, ...] | None
    wanted: float | None
    came: float | None
    fault: str | None


def accumulation_eps(dtype: torch.dtype) -> float:
    """Rounding unit of the sums of an operation: float32, or float64 for float64."""
    return torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps


def measure(actual: Tensor, plain: Tensor, exact: Tensor, *, factor: float, terms: float) -> Accuracy:
    """Holds `actual` against `exact` by the rule.

    Args:
        actual: the operation's result.
        plain: the same-dtype reference's result.
        exact: the float64 reference's result.
        factor: FORWARD or BACKWARD.
        terms: size of what is summed for one element, cancelling terms included.
    """
    if actual.shape != exact.shape:
        return _out_of_place(f"shape {tuple(actual.shape)}, wanted {tuple(exact.shape)}")
    if actual.dtype != plain.dtype:
        return _out_of_place(f"dtype {actual.dtype}, wanted {plain.dtype}")
    if actual.device != plain.device:
        return _out_of_place(f"device {actual.device}, wanted {plain.device}")
    if not actual.is_floating_point():
        return _nearest_miss(actual.double(), plain.double(), plain_error=0.0, allowed=0.0, why="integers are exact")
    representable = exact.to(actual.dtype)
    for what, test in (("NaN", torch.isnan), ("infinity", torch.isinf)):
        wrong = (test(actual) != test(representable)).nonzero()
        if len(wrong):
            index = tuple(wrong[0].tolist())
            fault = f"{what} or its absence at {list(index)} and {len(wrong) - 1} more places"
            return _out_of_place(fault, index, exact[index].item(), actual[index].item())
    if actual.numel() == 0:
        return Accuracy(0.0, 0.0, 0.0, None, None, None, None)
    finite = representable.isfinite()
    exact = exact.masked_fill(~finite, 0)
    # Plain PyTorch may overflow where the operation does not: infinitely wrong, no licence for the operation.
    plain_error = (plain.double() - exact).abs().masked_fill(~(finite & plain.isfinite()), 0).max().item()
    # In float64 the exact result is no better than the operation's, and both walk away from the truth.
    steps = 8 if actual.dtype == torch.float64 else 1
    floor = torch.finfo(actual.dtype).eps * exact.abs().max().item() + steps * accumulation_eps(actual.dtype) * terms
    why = f"{factor:g} x {plain_error:.3g}, the error of plain PyTorch, + {floor:.3g}"
    return _nearest_miss(
        actual.double().masked_fill(~finite, 0),
        exact,
        plain_error=plain_error,
        allowed=factor * plain_error + floor,
        why=why,
    )


def _nearest_miss(actual: Tensor, exact: Tensor, *, plain_error: float, allowed: float, why: str) -> Accuracy:
    """The largest error of finite tensors."""
    if actual.numel() == 0:
        return Accuracy(0.0, 0.0, 0.0, None, None, None, None)
    error = (actual - exact).abs()
    worst = error.argmax()
    index = tuple(int(i) for i in torch.unravel_index(worst, error.shape))
    largest, wanted, came = (x.flatten()[worst].item() for x in (error, exact, actual))
    fault = None
    if not largest <= allowed:
        fault = f"error {largest:.3g} at {list(index)}, where {wanted:.6g} is wanted and {came:.6g} came; allowed {why}"
    return Accuracy(largest, plain_error, allowed, index, wanted, came, fault)


def _out_of_place(
    fault: str, index: tuple[int, ...] | None = None, wanted: float | None = None, came: float | None = None
) -> Accuracy:
    return Accuracy(math.inf, 0.0, 0.0, index, wanted, came, fault)
