"""The published UniFormerV2 models by name."""

from typing import Any

from vtfast.models.preprocessing import Preprocessing
from vtfast.models.registry import register_model
from vtfast.models.uniformer_v2 import UniFormerV2

__all__ = ["uniformer_v2_b16", "uniformer_v2_l14", "uniformer_v2_l14_336"]

_LARGE: dict[str, Any] = {"patch_size": 14, "embed_dim": 1024, "depth": 24, "num_heads": 16}


def _preprocessing(side: int) -> Preprocessing:
    return Preprocessing((0.45,) * 3, (0.225,) * 3, short_side=side, crop=side, frames=8, stride=16)


@register_model(preprocessing=_preprocessing(224))
def uniformer_v2_b16(**config: Any) -> UniFormerV2:
    """UniFormerV2-B/16, 115 M parameters (163 M in the temporal design); options as in `UniFormerV2`."""
    return UniFormerV2(**config)


@register_model(preprocessing=_preprocessing(224))
def uniformer_v2_l14(**config: Any) -> UniFormerV2:
    """UniFormerV2-L/14, 354 M parameters (574 M in the temporal design); options as in `UniFormerV2`."""
    return UniFormerV2(**(_LARGE | config))


@register_model(preprocessing=_preprocessing(336))
def uniformer_v2_l14_336(**config: Any) -> UniFormerV2:
    """UniFormerV2-L/14 for frames of 336 x 336, 354 M parameters; options as in `UniFormerV2`."""
    return UniFormerV2(**(_LARGE | {"image_size": 336} | config))
