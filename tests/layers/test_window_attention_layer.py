import pytest
import torch
from oracles import randomise, torchvision_video

from vtfast.layers import WindowAttention3d


@pytest.mark.parametrize("shifted", [False, True], ids=["plain", "shifted"])
@pytest.mark.parametrize("size", [(4, 6, 6), (5, 7, 8), (2, 7, 5), (3, 2, 7), (1, 1, 1)], ids=str)
def test_agrees_with_torchvision(size: tuple[int, ...], shifted: bool) -> None:
    window, shift = (4, 3, 3), (2, 1, 1) if shifted else (0, 0, 0)
    layer = randomise(WindowAttention3d(16, 4, window, shift), seed=0).double()
    oracle = torchvision_video().swin_transformer.ShiftedWindowAttention3d(16, list(window), list(shift), 4).double()
    oracle.load_state_dict(layer.state_dict(), strict=False)
    x = torch.randn(2, *size, 16, dtype=torch.float64, requires_grad=True)
    out, expected = layer(x), oracle(x)
    torch.testing.assert_close(out, expected)
    weights = torch.randn_like(out)
    grads = torch.autograd.grad((out * weights).sum(), [x, *layer.parameters()])
    named = dict(oracle.named_parameters())
    expected_grads = torch.autograd.grad(
        (expected * weights).sum(), [x, *(named[n] for n, _ in layer.named_parameters())]
    )
    torch.testing.assert_close(grads, expected_grads)


@pytest.mark.parametrize("dropout", [0.0, 1.0])
@pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
def test_adds_the_residual_after_dropout(grad: bool, dropout: float) -> None:
    layer = randomise(WindowAttention3d(16, 4, (4, 3, 3), dropout=dropout), seed=0)
    x, residual = torch.randn(2, 4, 5, 6, 16), torch.randn(2, 4, 5, 6, 16)
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(layer(x, residual=residual), layer(x) + residual)
        assert torch.equal(layer(x, residual=residual), residual) == (dropout == 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": 5}, "num_heads must divide dim = 16, got 5"),
        ({"num_heads": 0}, "num_heads must divide dim = 16, got 0"),
        ({"window": (0, 7, 7)}, "window must be"),
        ({"shift": (4, 0, 0)}, r"shift must be smaller than window = \(4, 3, 3\), got \(4, 0, 0\)"),
        ({"shrunk_window_bias": "right"}, "shrunk_window_bias must be upstream or corrected, got 'right'"),
    ],
    ids=["heads", "no-heads", "window", "shift", "bias"],
)
def test_rejects(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WindowAttention3d(**({"dim": 16, "num_heads": 4, "window": (4, 3, 3)} | arguments))
