"""Token shift: some channels of a token come from the same place in the frame before or after.

Source: timesformer-pytorch; Zhang et al., "Token Shift Transformer for Video Classification", 2021, for the idea.
"""

from typing import Any

import torch
from torch import Tensor

from vtfast.ops._arguments import Triple


def token_shift(
    x: Tensor,  # [B, P + T*H*W, C]
    grid: Triple,
    *,
    num_prefix: int = 1,
) -> Tensor:  # [B, P + T*H*W, C]
    """Takes the first C // 3 channels from the next frame and the third C // 3 from the frame before.

    Beyond the first and the last frame there are zeros. The second C // 3 channels, those beyond the third and the
    prefix stay where they are.

    Args:
        x: tokens, the prefix and then the grid's, t slowest.
        grid: size of the token grid, (T, H, W).
        num_prefix: number of tokens before the grid's.
    """
    return _TokenShift.apply(x, grid[0], num_prefix, 1)


class _TokenShift(torch.autograd.Function):
    """One pass over the tokens. The gradient shifts the other way."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,  # [B, P + T*H*W, C]
        frames: int,
        num_prefix: int,
        direction: int,
    ) -> Tensor:  # [B, P + T*H*W, C]
        third = x.shape[-1] // 3
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        out[:, :num_prefix] = x[:, :num_prefix]
        source, target = (t[:, num_prefix:].unflatten(1, (frames, -1)) for t in (x, out))
        target[..., third : 2 * third] = source[..., third : 2 * third]
        target[..., 3 * third :] = source[..., 3 * third :]
        first, last = slice(0, third), slice(2 * third, 3 * third)
        ahead, behind = (first, last) if direction > 0 else (last, first)
        target[:, :-1, :, ahead] = source[:, 1:, :, ahead]
        target[:, -1, :, ahead] = 0
        target[:, 1:, :, behind] = source[:, :-1, :, behind]
        target[:, 0, :, behind] = 0
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.frames, ctx.num_prefix, ctx.direction = inputs[1:]

    @staticmethod
    def backward(
        ctx: Any,
        d_out: Tensor,  # [B, P + T*H*W, C]
    ) -> tuple[Tensor | None, ...]:
        return _TokenShift.apply(d_out, ctx.frames, ctx.num_prefix, -ctx.direction), None, None, None
