import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from oracles import randomise
from torch import Tensor

from vtfast.layers import DividedAttention
from vtfast.ops import divided_attention

GRID = (3, 2, 4)
SCHEMES = ["time", "space", "joint", "width", "height", "local", "global"]


def layer(scheme: str = "joint", **options: object) -> DividedAttention:
    return randomise(DividedAttention(**({"dim": 16, "num_heads": 4, "scheme": scheme} | options)), seed=0).double()


@pytest.mark.parametrize("options", [{}, {"qkv_bias": False}, {"head_dim": 6}, {"semantics": "lucidrains"}], ids=str)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_is_the_operation_between_two_projections(scheme: str, options: dict[str, object]) -> None:
    attention = layer(scheme, **options)
    x = torch.randn(2, 1 + 24, 16, dtype=torch.float64, requires_grad=True)
    qkv = x @ attention.qkv.weight.T
    qkv = qkv if attention.qkv.bias is None else qkv + attention.qkv.bias
    assert qkv.shape[-1] == 3 * 4 * options.get("head_dim", 4)
    semantics = options.get("semantics", "official")
    out = divided_attention(qkv, GRID, scheme=scheme, num_heads=4, num_prefix=1, semantics=semantics)
    expected = out @ attention.proj.weight.T + attention.proj.bias
    actual = attention(x, GRID)
    assert actual.shape == (2, 24 if (scheme, semantics) == ("time", "official") else 25, 16)
    torch.testing.assert_close(actual, expected)
    inputs, cotangent = [x, *attention.parameters()], torch.randn_like(actual)
    grads, expected_grads = (torch.autograd.grad((o * cotangent).sum(), inputs) for o in (actual, expected))
    torch.testing.assert_close(grads, expected_grads)


@pytest.mark.parametrize("num_prefix", [0, 1, 3])
def test_joint_attention_is_that_of_a_vit(num_prefix: int) -> None:
    """One group: every prefix token attends to everything once."""
    attention = layer("joint")
    x = torch.randn(2, num_prefix + 24, 16, dtype=torch.float64)
    q, k, v = rearrange(attention.qkv(x), "b n (s h d) -> s b h n d", s=3, h=4)
    expected = attention.proj(rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)"))
    torch.testing.assert_close(attention(x, GRID, num_prefix=num_prefix), expected)


def test_masked_frames_are_not_attended_to() -> None:
    attention = layer("joint")
    x = torch.randn(2, 1 + 24, 16, dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, True, False]])
    short = attention(x[:, : 1 + 16], (2, 2, 4))
    torch.testing.assert_close(attention(x, GRID, frame_mask=mask)[:, : 1 + 16], short)


def test_rotary_turns_queries_and_keys() -> None:
    """The tokens of each frame turned by an angle of its own, by hand."""
    attention = layer("joint")
    x = torch.randn(2, 24, 16, dtype=torch.float64)
    angle = torch.tensor([0.0, 0.3, 1.1], dtype=torch.float64).view(3, 1, 1, 1).expand(3, 1, 1, 4)
    q, k, v = rearrange(attention.qkv(x), "b (t n) (s h d) -> s b h t n d", s=3, h=4, t=3)

    def turned(x: Tensor) -> Tensor:  # [B, heads, T, N, D]
        cos, sin = (f(angle[:, 0, 0, :1]).unsqueeze(-1) for f in (torch.cos, torch.sin))
        even, odd = x[..., ::2], x[..., 1::2]
        return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)

    q, k, v = (t.flatten(2, 3) for t in (turned(q), turned(k), v))
    expected = attention.proj(rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)"))
    rotary = (angle.cos(), angle.sin())
    torch.testing.assert_close(attention(x, GRID, num_prefix=0, rotary=rotary), expected)


@pytest.mark.parametrize("dropout", [0.0, 1.0])
@pytest.mark.parametrize("scheme", ["time", "space"])
@pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
def test_adds_the_residual_after_dropout(grad: bool, scheme: str, dropout: float) -> None:
    attention = layer(scheme, dropout=dropout).float()
    x = torch.randn(2, 1 + 24, 16)
    residual = x[:, 1:] if scheme == "time" else x
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(attention(x, GRID, residual=residual), attention(x, GRID) + residual)
        assert torch.equal(attention(x, GRID, residual=residual), residual) == (dropout == 1.0)
        attention.eval()
        assert not torch.equal(attention(x, GRID, residual=residual), residual)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": 5}, "num_heads must divide dim = 16, got 5"),
        ({"num_heads": 0, "head_dim": 8}, "num_heads must divide dim = 16, got 0"),
        ({"scheme": "divided"}, "scheme must be one of time, space, joint, .*, got 'divided'"),
        ({"semantics": "huggingface"}, "semantics must be one of official, lucidrains, got 'huggingface'"),
    ],
    ids=["heads", "no-heads", "scheme", "semantics"],
)
def test_rejects(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DividedAttention(**({"dim": 16, "num_heads": 4, "scheme": "joint"} | arguments))
