"""The two-layer perceptron of a transformer block."""

import torch.nn.functional as F
from torch import Tensor, nn


class Mlp(nn.Module):
    """Computes fc2(GELU(fc1(x))), with dropout after each layer.

    Args:
        dim: channels of input and output.
        hidden_dim: channels between the layers.
        dropout: probability of dropping a value, in training.
    """

    def __init__(self, dim: int, hidden_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.dropout = dropout

    def forward(
        self,
        x: Tensor,  # [..., C]
    ) -> Tensor:  # [..., C]
        hidden = F.dropout(F.gelu(self.fc1(x)), self.dropout, self.training)
        return F.dropout(self.fc2(hidden), self.dropout, self.training)
