"""The published MViT and MViTv2 models by name."""

from typing import Any

from vtfast.models.mvit import MViT
from vtfast.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from vtfast.models.registry import register_model

__all__ = [
    "mvit_v1_b",
    "mvit_v1_b_24",
    "mvit_v1_b_32x3",
    "mvit_v1_b_image",
    "mvit_v2_b",
    "mvit_v2_l",
    "mvit_v2_l_maskfeat",
    "mvit_v2_s",
    "mvit_v2_s_maskfeat",
    "mvit_v2_t",
]

_V2: dict[str, Any] = {
    "pool_all_queries": True,
    "expand_in_attention": True,
    "residual_pooling": True,
    "abs_pos": False,
    "rel_pos_spatial": True,
    "rel_pos_temporal": True,
}
# Fine-tuned after masked feature prediction: the channels grow as in the first version.
_MASKFEAT: dict[str, Any] = _V2 | {
    "expand_in_attention": False,
    "norm_mean": True,
    "global_pool": "avg",
    "drop_rate": 0.0,
}
_LARGE: dict[str, Any] = {"embed_dim": 144, "depths": (2, 6, 36, 4), "num_heads": 2}


def _preprocessing(frames: int, stride: int) -> Preprocessing:
    return Preprocessing((0.45,) * 3, (0.225,) * 3, frames=frames, stride=stride)


@register_model(preprocessing=_preprocessing(frames=16, stride=4))
def mvit_v1_b(**config: Any) -> MViT:
    """MViT-B, 16 frames, 37 M parameters; options as in `MViT`."""
    return MViT(**config)


@register_model(preprocessing=_preprocessing(frames=32, stride=3))
def mvit_v1_b_32x3(**config: Any) -> MViT:
    """MViT-B of PyTorchVideo, 32 frames, 37 M parameters; options as in `MViT`."""
    return MViT(**({"num_frames": 32, "drop_path_rate": 0.3} | config))


@register_model(preprocessing=_preprocessing(frames=32, stride=3))
def mvit_v1_b_24(**config: Any) -> MViT:
    """MViT-B of 24 blocks as SlowFast configures it, 32 frames, 53 M parameters; options as in `MViT`."""
    published: dict[str, Any] = {"num_frames": 32, "depths": (2, 3, 16, 3), "pool_kernel": None, "drop_path_rate": 0.3}
    return MViT(**(published | config))


@register_model(
    preprocessing=Preprocessing(
        IMAGENET_MEAN, IMAGENET_STD, frames=1, stride=1, antialias=True, interpolation="bicubic"
    ),
    num_classes=1000,
)
def mvit_v1_b_image(**config: Any) -> MViT:
    """MViT-B-16 for images, which it takes as (B, C, H, W) too, 37 M parameters; options as in `MViT`."""
    published: dict[str, Any] = {
        "num_classes": 1000,
        "num_frames": 1,
        "patch_kernel": (1, 7, 7),
        "patch_stride": (1, 4, 4),
        "kv_stride": (1, 4, 4),
        "pool_kernel": (1, 3, 3),
        "drop_rate": 0.0,
        "drop_path_rate": 0.1,
    }
    return MViT(**(published | config))


@register_model(preprocessing=_preprocessing(frames=16, stride=4))
def mvit_v2_t(**config: Any) -> MViT:
    """MViTv2-T, 16 frames, 24 M parameters; options as in `MViT`. No weights for clips were published."""
    return MViT(**(_V2 | {"depths": (1, 2, 5, 2), "drop_path_rate": 0.1} | config))


@register_model(preprocessing=_preprocessing(frames=16, stride=4))
def mvit_v2_s(**config: Any) -> MViT:
    """MViTv2-S, 16 frames, 35 M parameters; options as in `MViT`."""
    return MViT(**(_V2 | config))


@register_model(preprocessing=_preprocessing(frames=32, stride=3))
def mvit_v2_b(**config: Any) -> MViT:
    """MViTv2-B, 32 frames, 51 M parameters; options as in `MViT`."""
    published: dict[str, Any] = {"num_frames": 32, "depths": (2, 3, 16, 3), "drop_path_rate": 0.3}
    return MViT(**(_V2 | published | config))


@register_model(preprocessing=Preprocessing(IMAGENET_MEAN, IMAGENET_STD, short_side=312, crop=312, frames=40, stride=3))
def mvit_v2_l(**config: Any) -> MViT:
    """MViTv2-L, 40 frames of 312 x 312, 213 M parameters; options as in `MViT`."""
    published: dict[str, Any] = {"image_size": 312, "num_frames": 40, "drop_path_rate": 0.75}
    return MViT(**(_V2 | _LARGE | published | config))


@register_model(preprocessing=_preprocessing(frames=16, stride=4))
def mvit_v2_s_maskfeat(**config: Any) -> MViT:
    """MViTv2-S of MaskFeat, 16 frames, 36 M parameters; options as in `MViT`."""
    return MViT(**(_MASKFEAT | {"drop_path_rate": 0.1} | config))


@register_model(preprocessing=_preprocessing(frames=16, stride=4))
def mvit_v2_l_maskfeat(**config: Any) -> MViT:
    """MViTv2-L of MaskFeat, 16 frames of 224 x 224, 218 M parameters; options as in `MViT`."""
    return MViT(**(_MASKFEAT | _LARGE | config))
