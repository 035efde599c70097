"""The probabilities of `grid_attention`, for looking at what a model attends to."""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vtfast.reference.grid_attention import Operands, Triple, operands, probabilities, slots


@dataclass(frozen=True)
class AttentionWeights:
    """How much each token attends to each other one, kept in groups: nothing here has the size of the clip squared.

    A row holds all weights of one query and sums to one; what goes to padded slots is part of that. The row of a query
    that may attend to nothing is zero. Tokens are numbered over the clip: the prefix, then the grid, t slowest.

    Args:
        groups: weights of the slots of each group on the same slots and then, where it has keys, on the prefix.
        tokens: which grid token is in each slot, counted without the prefix; -1 for padding.
        prefix: weights of the prefix tokens on the clip, the mean over the groups where they attend in each, without
            what goes to padded slots; None where the prefix does not attend.
        grid: size of the token grid, (T, H, W).
        num_prefix: number of tokens before the grid's.
    """

    groups: Tensor  # [B, G, num_heads, N, N] or [B, G, num_heads, N, N + P]
    tokens: Tensor  # [G, N], long
    prefix: Tensor | None  # [B, num_heads, P, P + T*H*W]
    grid: Triple
    num_prefix: int

    def mean_heads(self) -> "AttentionWeights":
        """The mean over the heads, as the weights of a single one."""
        prefix = None if self.prefix is None else self.prefix.mean(dim=1, keepdim=True)
        return replace(self, groups=self.groups.mean(dim=2, keepdim=True), prefix=prefix)

    def rows(
        self,
        queries: Tensor,  # [R], long
    ) -> Tensor:  # [B, num_heads, R, P + T*H*W]
        """The weights of a few queries on all tokens of the clip, without what goes to padded slots.

        Args:
            queries: numbers of the tokens.

        Raises:
            ValueError: there is a prefix token among them, and the prefix does not attend.
        """
        is_prefix = queries < self.num_prefix
        if self.prefix is None and bool(is_prefix.any()):
            raise ValueError(f"queries must be at least {self.num_prefix}: the prefix does not attend; got {queries}")
        places = torch.nonzero(self.tokens >= 0)[self.tokens[self.tokens >= 0].argsort()]  # [T*H*W, 2]
        group, slot = places[(queries - self.num_prefix).clamp(min=0)].unbind(1)
        weights = self.groups[:, group, :, slot].permute(1, 2, 0, 3)  # [B, num_heads, R, N + P]
        out = weights.new_zeros((*weights.shape[:3], self._num_tokens + 1))
        out = out.scatter(-1, self._keys()[group].expand_as(weights), weights)[..., :-1]
        if self.prefix is None:
            return out
        return torch.where(is_prefix[:, None], self.prefix[:, :, queries.clamp(max=self.num_prefix - 1)], out)

    def trace_back(
        self,
        shares: Tensor,  # [B, R, P + T*H*W]
    ) -> Tensor:  # [B, R, P + T*H*W]
        """`shares` times the matrix of all rows, averaged over the heads: where mixtures of the outputs come from.

        A prefix token that does not attend keeps its share.
        """
        num_prefix, num_slots = self.num_prefix, self.tokens.shape[1]
        keys = self._keys()
        groups = self.groups.mean(dim=2, dtype=shares.dtype)  # [B, G, N, N + P]
        in_slots = F.pad(shares, (0, 1))[..., keys[:, :num_slots]]  # [B, R, G, N]
        in_keys = torch.einsum("brgn,bgnm->brgm", in_slots, groups)
        out = F.pad(torch.zeros_like(shares), (0, 1)).index_add(-1, keys.flatten(), in_keys.flatten(2))[..., :-1]
        of_prefix = shares[..., :num_prefix]
        if self.prefix is None:
            return out + F.pad(of_prefix, (0, self._num_tokens - num_prefix))
        return out + of_prefix @ self.prefix.mean(dim=1, dtype=shares.dtype)

    def _over_clip(
        self,
        weights: Tensor,  # [B, G, num_heads, P, N] or [B, G, num_heads, P, N + P]
    ) -> Tensor:  # [B, num_heads, P, P + T*H*W]
        """The mean over the groups."""
        weights = weights.permute(0, 2, 3, 1, 4) / weights.shape[1]  # [B, num_heads, P, G, N + P]
        out = weights.new_zeros((*weights.shape[:3], self._num_tokens + 1))
        return out.index_add(-1, self._keys().flatten(), weights.flatten(-2))[..., :-1]

    @property
    def _num_tokens(self) -> int:
        return self.num_prefix + self.grid[0] * self.grid[1] * self.grid[2]

    def _keys(self) -> Tensor:  # [G, N] or [G, N + P]
        """The number of the token of each key of a group; padding comes after all tokens."""
        keys = torch.where(self.tokens < 0, self._num_tokens, self.tokens + self.num_prefix)
        if self.groups.shape[-1] == keys.shape[1]:
            return keys
        return torch.cat([keys, torch.arange(self.num_prefix, device=keys.device).expand(len(keys), -1)], dim=1)


def attention_weights(
    qkv: Tensor,  # [B, P + T*H*W, 3*C] or, without prefix, [B, T, H, W, 3*C]
    grid: Triple,
    *,
    block: Triple,
    dilation: Triple = (1, 1, 1),
    shift: Triple = (0, 0, 0),
    num_prefix: int = 0,
    **settings: Any,
) -> AttentionWeights:
    """Same arguments as `grid_attention`; what its result weighs v with."""
    tokens, prefix = operands(
        qkv, grid, block=block, dilation=dilation, shift=shift, num_prefix=num_prefix, **settings
    )  # fmt: skip
    index = torch.arange(grid[0] * grid[1] * grid[2], device=qkv.device).view(1, *grid, 1)
    index = slots(index, block, dilation, shift, pad=index.new_full((1,), -1))[0, ..., 0]
    out = AttentionWeights(_weights(tokens), index, None, grid, num_prefix)
    if prefix is None:
        return out
    weights = _weights(prefix)
    return replace(out, prefix=weights if weights.dim() == 4 else out._over_clip(weights))


def _weights(attention: Operands) -> Tensor:  # [..., M, N]
    weights, some = probabilities(attention)
    return weights * some
