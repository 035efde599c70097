import pytest
import torch
import torch.nn.functional as F
from oracles import randomise, torchvision_video

from vtfast.layers import PatchMerging


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 4, 6), (3, 5, 4), (1, 4, 7), (2, 3, 3)])
def test_agrees_with_torchvision(size: tuple[int, ...]) -> None:
    oracle = torchvision_video().swin_transformer.PatchMerging(6)
    layer = randomise(PatchMerging(6), seed=0)
    oracle.load_state_dict(layer.state_dict())
    x = torch.randn(2, *size, 6, requires_grad=True)
    merged, expected = layer(x), oracle(x)
    torch.testing.assert_close(merged, expected)
    weights = torch.randn_like(merged)
    (grad,) = torch.autograd.grad((merged * weights).sum(), x)
    torch.testing.assert_close(grad, torch.autograd.grad((expected * weights).sum(), x)[0])


def test_order_of_neighbours() -> None:
    layer = PatchMerging(1)
    square = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).reshape(1, 1, 2, 2, 1)
    layer.reduction.weight.data = torch.eye(4)
    joined = F.layer_norm(torch.tensor([0.0, 2.0, 1.0, 3.0]), (4,))
    torch.testing.assert_close(layer(square).flatten(), joined)
