"""Position embeddings that are the sum of one for the place in the frame and one for the frame, as in MViT."""

from torch import Tensor

from vtfast.layers.axis_resize import resize_axis
from vtfast.ops._arguments import Triple


def separable_positions(
    spatial: Tensor,  # [1, h*w, C]
    temporal: Tensor,  # [1, t, C]
    old: Triple,
    new: Triple,
) -> Tensor:  # [1, T*H*W, C]
    """The embedding of every token of a grid (T, H, W), learned for a grid (t, h, w).

    Resized as SlowFast and mmaction2 resize it, which interpolate the sum trilinearly: that is the sum of a bilinear
    and a linear interpolation.
    """
    places = spatial.unflatten(1, old[1:])  # [1, h, w, C]
    places = resize_axis(resize_axis(places, 1, new[1]), 2, new[2])
    frames = resize_axis(temporal, 1, new[0])
    return (frames[:, :, None, None] + places[:, None]).flatten(1, 3)
