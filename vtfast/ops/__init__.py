"""The compiled operations; `vtfast.reference` holds the specification of each, with the same signature."""

from vtfast.ops.depthwise_conv3d import depthwise_conv3d
from vtfast.ops.divided_attention import (
    axial_attention,
    divided_attention,
    joint_attention,
    space_attention,
    sparse_global_attention,
    sparse_local_attention,
    time_attention,
)
from vtfast.ops.grid_attention import grid_attention
from vtfast.ops.pool_qkv import pool_qkv
from vtfast.ops.pool_tokens import pool_tokens
from vtfast.ops.pooling_attention import pooling_attention
from vtfast.ops.rotary_embedding import rotary_embedding
from vtfast.ops.window_attention import window_attention
from vtfast.reference import TokenPool, pooled_grid

__all__ = [
    "TokenPool",
    "axial_attention",
    "depthwise_conv3d",
    "divided_attention",
    "grid_attention",
    "joint_attention",
    "pool_qkv",
    "pool_tokens",
    "pooled_grid",
    "pooling_attention",
    "rotary_embedding",
    "space_attention",
    "sparse_global_attention",
    "sparse_local_attention",
    "time_attention",
    "window_attention",
]
