"""The activations of the perceptrons, in the forms that a fused product and a backward by slices need."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Activation:
    """The elementwise function f(x) = g(factor * x) / factor, whose derivative at x is that of g at factor * x.

    Args:
        function: g.
        gradient: the gradient of g by its input, from (gradient of the result, input), written to `grad_input`.
        fused: what oneDNN's linear operation calls g.
        factor: the factor.
    """

    function: Callable[[Tensor], Tensor]
    gradient: Callable[..., Tensor]
    fused: str
    factor: float = 1.0

    def __call__(
        self,
        x: Tensor,  # [...]
    ) -> Tensor:  # [...]
        return self.function(x) if self.factor == 1.0 else self.function(x * self.factor).div_(self.factor)

    def backward(
        self,
        d_out: Tensor,  # [...]
        x: Tensor,  # [...]
        out: Tensor,  # [...]
    ) -> Tensor:  # [...]
        """The gradient of `x`, written to `out`."""
        return self.gradient(d_out, x if self.factor == 1.0 else x * self.factor, grad_input=out)


ACTIVATIONS = {
    "gelu": Activation(F.gelu, torch.ops.aten.gelu_backward.grad_input, "gelu"),
    # CLIP's x * sigmoid(1.702 * x).
    "quick_gelu": Activation(F.silu, torch.ops.aten.silu_backward.grad_input, "swish", 1.702),
}
