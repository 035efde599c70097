"""The published UniFormers by name."""

from typing import Any

from vtfast.models.preprocessing import Preprocessing
from vtfast.models.registry import register_model
from vtfast.models.uniformer import UniFormer
from vtfast.models.uniformer_light import UniFormerLight

__all__ = ["uniformer_b", "uniformer_b_split", "uniformer_s", "uniformer_s_split", "uniformer_xs", "uniformer_xxs"]

_BASE: dict[str, Any] = {"depths": (5, 8, 20, 7), "drop_path_rate": 0.3}


def _preprocessing(frames: int, stride: int, short_side: int = 256, crop: int = 224) -> Preprocessing:
    return Preprocessing((0.45,) * 3, (0.225,) * 3, short_side, crop, frames, stride)


@register_model(preprocessing=_preprocessing(frames=16, stride=4))
def uniformer_s(**config: Any) -> UniFormer:
    """UniFormer-S, 21 M parameters, published for 8, 16 and 32 frames; options as in `UniFormer`."""
    return UniFormer(**config)


@register_model(preprocessing=_preprocessing(frames=16, stride=4))
def uniformer_b(**config: Any) -> UniFormer:
    """UniFormer-B, 50 M parameters, published for 8, 16 and 32 frames; options as in `UniFormer`."""
    return UniFormer(**(_BASE | config))


@register_model(preprocessing=_preprocessing(frames=16, stride=4))
def uniformer_s_split(**config: Any) -> UniFormer:
    """UniFormer-S with attention over time and then space, 28 M parameters; no weights were published."""
    return UniFormer(**({"split": True} | config))


@register_model(preprocessing=_preprocessing(frames=16, stride=4))
def uniformer_b_split(**config: Any) -> UniFormer:
    """UniFormer-B with attention over time and then space, 65 M parameters; no weights were published."""
    return UniFormer(**(_BASE | {"split": True} | config))


@register_model(preprocessing=_preprocessing(frames=16, stride=8, short_side=160, crop=160))
def uniformer_xxs(**config: Any) -> UniFormerLight:
    """UniFormer-XXS, 10 M parameters, published for 4 to 32 frames of 128 x 128 and 160 x 160.

    Options as in `UniFormerLight`. The frames were spread over the whole video.
    """
    return UniFormerLight(**config)


@register_model(preprocessing=_preprocessing(frames=32, stride=4, short_side=192, crop=192))
def uniformer_xs(**config: Any) -> UniFormerLight:
    """UniFormer-XS, 16 M parameters, published for 32 frames of 192 x 192; the rest as for `uniformer_xxs`."""
    published: dict[str, Any] = {
        "depths": (3, 5, 9, 3),
        "embed_dims": (64, 128, 256, 512),
        "head_dim": 32,
        "drop_path_rate": 0.1,
    }
    return UniFormerLight(**(published | config))
