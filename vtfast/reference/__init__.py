"""The specification of every operation in plain PyTorch: short, differentiable, for any device and dtype."""

from vtfast.reference.attention_weights import AttentionWeights, attention_weights
from vtfast.reference.grid_attention import grid_attention, relative_position_bias
from vtfast.reference.rotary_embedding import rotary_embedding

__all__ = ["AttentionWeights", "attention_weights", "grid_attention", "relative_position_bias", "rotary_embedding"]
