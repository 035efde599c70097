"""Dynamic position embedding: a depthwise convolution, by whose zero padding tokens know where they are.

Source: Chu et al., "Conditional Positional Encodings for Vision Transformers", 2021; Li et al., "UniFormer: Unified
Transformer for Efficient Spatiotemporal Representation Learning", 2022, section 3.3.
"""

import torch
from torch import Tensor

from vtfast.layers.depthwise_conv3d import DepthwiseConv3d


def add_positions(
    x: Tensor,  # [B, T, H, W, C]
    conv: DepthwiseConv3d,
) -> Tensor:  # [B, T, H, W, C]
    """The sum of `x` and its convolution, in one pass and in the dtype of `x`.

    Also under autocast: the sum is the residual stream, which autocast leaves in float32.
    """
    if not torch.amp.is_autocast_available(x.device.type):
        return conv.tokens(x, residual=True)
    with torch.autocast(x.device.type, enabled=False):
        return conv.tokens(x, residual=True)
