"""Self-attention over space and time by a named scheme, as a layer.

Source: Bertasius et al., "Is Space-Time Attention All You Need for Video Understanding?", 2021, section 3.
"""

from typing import Any

from torch import Tensor, nn

from vtfast.layers.linear import linear
from vtfast.ops._arguments import Triple
from vtfast.ops.divided_attention import SCHEMES, SEMANTICS, divided_attention
from vtfast.ops.divided_attention_weights import divided_attention_weights
from vtfast.reference import AttentionWeights


class DividedAttention(nn.Module):
    """Multi-head self-attention of each token with the tokens of its group; prefix tokens (cls) come first.

    Args:
        dim: channels.
        num_heads: number of attention heads.
        scheme: "time", "space", "joint", "width", "height", "local" or "global"; see `vtfast.ops.divided_attention`.
        semantics: what the prefix does, "official" or "lucidrains"; the official "time" leaves it out of the result.
        head_dim: channels of a head; dim / num_heads if None.
        qkv_bias: whether the packed projection has a bias.
        dropout: probability of dropping a value of the output, in training.

    Raises:
        ValueError: `num_heads` does not divide `dim` where it has to, or an unknown scheme or semantics.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        scheme: str,
        *,
        semantics: str = "official",
        head_dim: int | None = None,
        qkv_bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if num_heads < 1 or (head_dim is None and dim % num_heads):
            raise ValueError(f"num_heads must divide dim = {dim}, got {num_heads}")
        if scheme not in SCHEMES:
            raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, got {scheme!r}")
        if semantics not in SEMANTICS:
            raise ValueError(f"semantics must be one of {', '.join(SEMANTICS)}, got {semantics!r}")
        inner_dim = num_heads * (dim // num_heads if head_dim is None else head_dim)
        self.num_heads = num_heads
        self.scheme = scheme
        self.semantics = semantics
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * inner_dim, bias=qkv_bias)
        self.proj = nn.Linear(inner_dim, dim)

    def forward(
        self,
        x: Tensor,  # [B, P + T*H*W, C]
        grid: Triple,
        *,
        num_prefix: int = 1,
        frame_mask: Tensor | None = None,  # [B, T], bool
        rotary: tuple[Tensor, Tensor] | None = None,  # cos and sin, each [T or 1, H or 1, W or 1, R]
        residual: Tensor | None = None,  # as the result, to which it is added
    ) -> Tensor:  # [B, P + T*H*W, C], or [B, T*H*W, C] for the official "time"
        settings = self._settings(num_prefix=num_prefix, frame_mask=frame_mask, rotary=rotary)
        out = divided_attention(linear(x, self.qkv), grid, **settings)
        return linear(out, self.proj, dropout=self.dropout if self.training else 0.0, residual=residual)

    def attention_weights(
        self,
        x: Tensor,  # [B, P + T*H*W, C]
        grid: Triple,
        *,
        num_prefix: int = 1,
        frame_mask: Tensor | None = None,  # [B, T], bool
        rotary: tuple[Tensor, Tensor] | None = None,  # cos and sin, each [T or 1, H or 1, W or 1, R]
    ) -> AttentionWeights:
        """What `forward` attends to, computed by the reference."""
        settings = self._settings(num_prefix=num_prefix, frame_mask=frame_mask, rotary=rotary)
        return divided_attention_weights(linear(x, self.qkv), grid, **settings)

    def _settings(self, **settings: Any) -> dict[str, Any]:
        return settings | {"scheme": self.scheme, "num_heads": self.num_heads, "semantics": self.semantics}

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, scheme={self.scheme}, semantics={self.semantics}"
