"""The two-layer perceptron of a transformer block."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vtfast.layers.activation import ACTIVATIONS
from vtfast.layers.linear import can_fuse, fused_linear, wants_gradient
from vtfast.layers.row_slices import by_row_slices, row_slices, sum_of_slices


class Mlp(nn.Module):
    """Computes fc2(activation(fc1(x))), with dropout after each layer, and adds a residual if given.

    On a CPU the hidden layer, the largest tensor of the block, exists only for a slice of the tokens at a time, which
    stays in the caches. Training keeps what enters the activation, and computes that again in the backward.

    Args:
        dim: channels of the input.
        hidden_dim: channels between the layers.
        dropout: probability of dropping a value, in training.
        dim_out: channels of the output; `dim` if None.
        activation: "gelu" (the exact one, with erf) or "quick_gelu" (CLIP's x * sigmoid(1.702 * x)).
        dropout_out: probability of dropping a value of the output; `dropout` if None.

    Raises:
        ValueError: `activation` is neither.
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        dropout: float = 0.0,
        dim_out: int | None = None,
        *,
        activation: str = "gelu",
        dropout_out: float | None = None,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim if dim_out is None else dim_out)
        self.activation = activation
        self.dropout = dropout
        self.dropout_out = dropout if dropout_out is None else dropout_out

    def forward(
        self,
        x: Tensor,  # [..., C]
        residual: Tensor | None = None,  # [..., C']
    ) -> Tensor:  # [..., C']
        layers = (self.fc1, self.fc2)
        drops = self.training and max(self.dropout, self.dropout_out) > 0.0
        if not drops and can_fuse(x, *layers, residual=residual):
            parameters = (self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias)
            if not wants_gradient(x, *layers, residual=residual):
                return self._infer(x, residual, *parameters)
            if all(parameter.requires_grad for parameter in parameters):
                return self._train(x, residual, *parameters)
        out = self._compose(x)
        return out if residual is None else out + residual

    def _infer(self, *tensors: Tensor | None) -> Tensor:
        return _mlp(*tensors, self.activation)  # type: ignore[arg-type, call-arg]

    def _train(self, *tensors: Tensor | None) -> Tensor:
        return _TrainedMlp.apply(*tensors, self.activation)

    def _compose(
        self,
        x: Tensor,  # [..., C]
    ) -> Tensor:  # [..., C']
        """The same of single operations of PyTorch, with dropout."""
        hidden = F.dropout(ACTIVATIONS[self.activation](self.fc1(x)), self.dropout, self.training)
        return F.dropout(self.fc2(hidden), self.dropout_out, self.training)


def _mlp(
    x: Tensor,  # [..., C]
    residual: Tensor | None,  # [..., C']
    weight1: Tensor,  # [hidden, C]
    bias1: Tensor,  # [hidden]
    weight2: Tensor,  # [C', hidden]
    bias2: Tensor,  # [C']
    activation: str,
) -> Tensor:  # [..., C']
    form = ACTIVATIONS[activation]
    scaled_bias = bias1 if form.factor == 1.0 else bias1 * form.factor

    def compute(x_rows: Tensor, residual_rows: Tensor | None) -> Tensor:
        if form.factor == 1.0:
            hidden = fused_linear(x_rows, weight1, bias1, form.fused)
        else:
            hidden = fused_linear(x_rows * form.factor, weight1, scaled_bias, form.fused).div_(form.factor)
        return fused_linear(hidden, weight2, bias2, residual=residual_rows)

    return by_row_slices(compute, weight2.shape[0], x, residual)


class _TrainedMlp(torch.autograd.Function):
    """`_mlp` with its gradients, by slices in both directions."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,  # [..., C]
        residual: Tensor | None,  # [..., C']
        weight1: Tensor,  # [hidden, C]
        bias1: Tensor,  # [hidden]
        weight2: Tensor,  # [C', hidden]
        bias2: Tensor,  # [C']
        activation: str,
    ) -> Tensor:  # [..., C']
        ctx.activation = ACTIVATIONS[activation]

        def compute(hidden_rows: Tensor, residual_rows: Tensor | None) -> Tensor:
            return fused_linear(ctx.activation(hidden_rows), weight2, bias2, residual=residual_rows)

        hidden = fused_linear(x, weight1, bias1)
        ctx.save_for_backward(x, hidden, weight1, weight2)
        return by_row_slices(compute, weight2.shape[0], hidden, residual)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        d_out: Tensor,  # [..., C']
    ) -> tuple[Tensor | None, ...]:
        x, hidden, weight1, weight2 = ctx.saved_tensors
        d_out, d_x = d_out.contiguous(), torch.empty_like(x)
        d_weight1 = d_bias1 = d_weight2 = None
        for x_rows, hidden_rows, d_out_rows, d_x_rows in row_slices(x, hidden, d_out, d_x):
            active = ctx.activation(hidden_rows)
            d_weight2 = sum_of_slices(d_weight2, d_out_rows.t() @ active)
            d_active = fused_linear(d_out_rows, weight2.t(), None)
            d_hidden = ctx.activation.backward(d_active, hidden_rows, out=active)
            d_weight1 = sum_of_slices(d_weight1, d_hidden.t() @ x_rows)
            d_bias1 = sum_of_slices(d_bias1, d_hidden.sum(0))
            torch.mm(d_hidden, weight1, out=d_x_rows)
        d_residual = d_out if ctx.needs_input_grad[1] else None
        d_parameters = (d_weight1, d_bias1, d_weight2, d_out.flatten(0, -2).sum(0))
        rounded = (None if gradient is None else gradient.to(x.dtype) for gradient in d_parameters)
        return d_x, d_residual, *rounded, None
