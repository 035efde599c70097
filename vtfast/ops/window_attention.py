"""Attention inside the (shifted) 3D windows of Video Swin."""

from collections.abc import Sequence

from torch import Tensor

from vtfast.ops._arguments import triple
from vtfast.ops.grid_attention import grid_attention

_SHRUNK_BIAS = {"upstream": "window", "corrected": "block"}


def window_attention(
    qkv: Tensor,  # [B, T, H, W, 3*C]
    *,
    num_heads: int,
    window: int | Sequence[int],
    shift: int | Sequence[int] = 0,
    bias_table: Tensor | None = None,  # [(2*Wt-1)*(2*Wh-1)*(2*Ww-1), num_heads]
    pad_qkv: Tensor | None = None,  # [3*C]
    shrunk_bias: str = "upstream",
    key_mask: Tensor | None = None,  # [B, T, H, W], bool
    scale: float | None = None,
) -> Tensor:  # [B, T, H, W, C]
    """`grid_attention` with windows, and Swin's rule for a grid that is smaller than the window.

    Along each axis where the grid is no larger than the window, the window shrinks to the grid and is not shifted.

    Args:
        qkv: packed projection [q | k | v], each (num_heads, head_dim).
        num_heads: number of attention heads.
        window: window (T, H, W), in tokens.
        shift: cyclic shift (T, H, W), in tokens, smaller than the window.
        bias_table: relative position bias of the whole `window`.
        pad_qkv: the projection's bias, which stands for padded tokens; zeros if None.
        shrunk_bias: how a shrunk window reads `bias_table`. "upstream" numbers the slots as in the whole window, as
            the published code and so the published weights do; offsets are then wrong where height or width
            shrinks. "corrected" uses the true offsets. Both agree where at most the time axis shrinks.
        key_mask: True where a token may be attended to.
        scale: factor of the scores; head_dim ** -0.5 if None.

    Returns:
        Attention output in the layout of `qkv`.

    Raises:
        TypeError: an argument of another type or dtype.
        ValueError: an argument of another shape, size or device.

    Source: Liu et al., "Video Swin Transformer", 2022, section 3.2.
    """
    if not isinstance(qkv, Tensor) or qkv.dim() != 5:
        got = f"shape {tuple(qkv.shape)}" if isinstance(qkv, Tensor) else type(qkv).__name__
        raise ValueError(f"qkv must be [B, T, H, W, 3*C], got {got}")
    if shrunk_bias not in _SHRUNK_BIAS:
        raise ValueError(f"shrunk_bias must be one of {', '.join(_SHRUNK_BIAS)}, got {shrunk_bias!r}")
    window, shift = triple(window, "window", 1), triple(shift, "shift", 0)
    if any(s >= w for s, w in zip(shift, window, strict=True)):
        raise ValueError(f"shift must be smaller than window = {window}, got {shift}")
    grid = qkv.shape[1:4]
    fits = [size <= w for size, w in zip(grid, window, strict=True)]
    return grid_attention(
        qkv,
        grid,
        num_heads=num_heads,
        block=[size if fit else w for size, w, fit in zip(grid, window, fits, strict=True)],
        shift=[0 if fit else s for s, fit in zip(shift, fits, strict=True)],
        bias_table=bias_table,
        bias_window=window,
        bias_order=_SHRUNK_BIAS[shrunk_bias],
        pad_qkv=pad_qkv,
        key_mask=key_mask,
        scale=scale,
    )
