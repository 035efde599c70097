"""The perceptron with a gated hidden layer.

Source: Shazeer, "GLU Variants Improve Transformer", 2020.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vtfast.layers.linear import fused_linear
from vtfast.layers.mlp import Mlp
from vtfast.layers.row_slices import by_row_slices, row_slices, sum_of_slices


class Geglu(Mlp):
    """Computes fc2(a * GELU(b)) with (a, b) the halves of fc1(x), and adds a residual if given.

    On a CPU the hidden layer exists only for a slice of the tokens at a time, as in `Mlp`. Training keeps a and b, and
    computes the rest again in the backward.

    Args:
        dim: channels of input and output.
        hidden_dim: channels of a, and of b.
        dropout: probability of dropping a value of the hidden layer, in training.
    """

    def __init__(self, dim: int, hidden_dim: int, dropout: float = 0.0) -> None:
        super().__init__(dim, hidden_dim, dropout)
        self.fc1 = nn.Linear(dim, 2 * hidden_dim)

    def _infer(self, *tensors: Tensor | None) -> Tensor:
        return _geglu(*tensors)  # type: ignore[arg-type]

    def _train(self, *tensors: Tensor | None) -> Tensor:
        return _TrainedGeglu.apply(*tensors)

    def _compose(
        self,
        x: Tensor,  # [..., C]
    ) -> Tensor:  # [..., C]
        value, gate = self.fc1(x).chunk(2, dim=-1)
        out: Tensor = self.fc2(F.dropout(value * F.gelu(gate), self.dropout, self.training))
        return out


def _geglu(
    x: Tensor,  # [..., C]
    residual: Tensor | None,  # [..., C]
    weight1: Tensor,  # [2*hidden, C]
    bias1: Tensor,  # [2*hidden]
    weight2: Tensor,  # [C, hidden]
    bias2: Tensor,  # [C]
) -> Tensor:  # [..., C]
    (value_weight, gate_weight), (value_bias, gate_bias) = weight1.chunk(2), bias1.chunk(2)
    gated = torch.ops.mkldnn._linear_pointwise.binary

    def compute(x_rows: Tensor, residual_rows: Tensor | None) -> Tensor:
        gate = fused_linear(x_rows, gate_weight, gate_bias, "gelu")
        hidden = gated(x_rows, gate, value_weight, value_bias, "mul")
        return fused_linear(hidden, weight2, bias2, residual=residual_rows)

    return by_row_slices(compute, weight2.shape[0], x, residual)


class _TrainedGeglu(torch.autograd.Function):
    """`_geglu` with its gradients, by slices in both directions."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,  # [..., C]
        residual: Tensor | None,  # [..., C]
        weight1: Tensor,  # [2*hidden, C]
        bias1: Tensor,  # [2*hidden]
        weight2: Tensor,  # [C, hidden]
        bias2: Tensor,  # [C]
    ) -> Tensor:  # [..., C]
        def compute(pair_rows: Tensor, residual_rows: Tensor | None) -> Tensor:
            value, gate = pair_rows.chunk(2, dim=-1)
            return fused_linear(F.gelu(gate).mul_(value), weight2, bias2, residual=residual_rows)

        pairs = fused_linear(x, weight1, bias1)
        ctx.save_for_backward(x, pairs, weight1, weight2)
        return by_row_slices(compute, weight2.shape[0], pairs, residual)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        d_out: Tensor,  # [..., C]
    ) -> tuple[Tensor | None, ...]:
        x, pairs, weight1, weight2 = ctx.saved_tensors
        d_out, d_x = d_out.contiguous(), torch.empty_like(x)
        d_weight1 = d_bias1 = d_weight2 = None
        for x_rows, pair_rows, d_out_rows, d_x_rows in row_slices(x, pairs, d_out, d_x):
            value, gate = pair_rows.chunk(2, dim=-1)
            active = F.gelu(gate)
            d_hidden, d_pairs = d_out_rows @ weight2, torch.empty_like(pair_rows)
            d_value, d_gate = d_pairs.chunk(2, dim=-1)
            torch.mul(d_hidden, active, out=d_value)
            torch.ops.aten.gelu_backward.grad_input(d_hidden.mul_(value), gate, grad_input=d_gate)
            d_weight2 = sum_of_slices(d_weight2, d_out_rows.t() @ active.mul_(value))
            d_weight1 = sum_of_slices(d_weight1, d_pairs.t() @ x_rows)
            d_bias1 = sum_of_slices(d_bias1, d_pairs.sum(0))
            torch.mm(d_pairs, weight1, out=d_x_rows)
        d_residual = d_out if ctx.needs_input_grad[1] else None
        d_parameters = (d_weight1, d_bias1, d_weight2, d_out.flatten(0, -2).sum(0))
        return d_x, d_residual, *(None if gradient is None else gradient.to(x.dtype) for gradient in d_parameters)
