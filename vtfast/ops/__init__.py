"""The compiled operations; `vtfast.reference` holds the specification of each, with the same signature."""

from vtfast.ops.grid_attention import grid_attention
from vtfast.ops.window_attention import window_attention

__all__ = ["grid_attention", "window_attention"]
