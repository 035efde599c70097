import torch
from torch import nn

from vtfast.layers import Mlp


def test_is_two_linear_layers_and_a_gelu() -> None:
    mlp = Mlp(8, 12)
    x = torch.randn(2, 3, 8)
    torch.testing.assert_close(mlp(x), nn.Sequential(mlp.fc1, nn.GELU(), mlp.fc2)(x))


def test_dropout_acts_in_training_only() -> None:
    mlp, x = Mlp(8, 12, dropout=0.5), torch.randn(2, 3, 8)
    assert (mlp(x) == 0).any()
    assert torch.equal(mlp.eval()(x), mlp(x))
