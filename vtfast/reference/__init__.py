"""The specification of every operation in plain PyTorch: short, differentiable, for any device and dtype."""

from vtfast.reference.attention_weights import AttentionWeights, attention_weights
from vtfast.reference.depthwise_conv3d import convolved_grid, depthwise_conv3d
from vtfast.reference.grid_attention import grid_attention, relative_position_bias
from vtfast.reference.pool_tokens import TokenPool, pool_qkv, pool_tokens, pooled_grid
from vtfast.reference.pooling_attention import decomposed_bias, pooling_attention, relative_rows
from vtfast.reference.rotary_embedding import rotary_embedding

__all__ = [
    "AttentionWeights",
    "TokenPool",
    "attention_weights",
    "convolved_grid",
    "decomposed_bias",
    "depthwise_conv3d",
    "grid_attention",
    "pool_qkv",
    "pool_tokens",
    "pooled_grid",
    "pooling_attention",
    "relative_position_bias",
    "relative_rows",
    "rotary_embedding",
]
