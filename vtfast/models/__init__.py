"""Video models, one architecture a file."""

from vtfast.models.attention import AttentionStep, record_attention
from vtfast.models.features import FeatureExtractor
from vtfast.models.mvit import MViT
from vtfast.models.mvit_variants import (
    mvit_v1_b,
    mvit_v1_b_24,
    mvit_v1_b_32x3,
    mvit_v1_b_image,
    mvit_v2_b,
    mvit_v2_l,
    mvit_v2_l_maskfeat,
    mvit_v2_s,
    mvit_v2_s_maskfeat,
    mvit_v2_t,
)
from vtfast.models.preprocessing import Preprocessing
from vtfast.models.registry import ModelConfig, create_model, list_models, model_config, register_model
from vtfast.models.rollout import Rollout, rollout
from vtfast.models.timesformer import TimeSformer, timesformer_base, timesformer_hr, timesformer_l
from vtfast.models.timesformer_lucidrains import TimeSformerLucidrains, timesformer_lucidrains
from vtfast.models.uniformer import UniFormer
from vtfast.models.uniformer_light import UniFormerLight
from vtfast.models.uniformer_v2 import UniFormerV2
from vtfast.models.uniformer_v2_variants import uniformer_v2_b16, uniformer_v2_l14, uniformer_v2_l14_336
from vtfast.models.uniformer_variants import (
    uniformer_b,
    uniformer_b_split,
    uniformer_s,
    uniformer_s_split,
    uniformer_xs,
    uniformer_xxs,
)
from vtfast.models.video_swin import VideoSwin, swin3d_b, swin3d_b_ssv2, swin3d_l, swin3d_s, swin3d_t

__all__ = [
    "AttentionStep",
    "FeatureExtractor",
    "MViT",
    "ModelConfig",
    "Preprocessing",
    "Rollout",
    "TimeSformer",
    "TimeSformerLucidrains",
    "UniFormer",
    "UniFormerLight",
    "UniFormerV2",
    "VideoSwin",
    "create_model",
    "list_models",
    "model_config",
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
    "record_attention",
    "register_model",
    "rollout",
    "swin3d_b",
    "swin3d_b_ssv2",
    "swin3d_l",
    "swin3d_s",
    "swin3d_t",
    "timesformer_base",
    "timesformer_hr",
    "timesformer_l",
    "timesformer_lucidrains",
    "uniformer_b",
    "uniformer_b_split",
    "uniformer_s",
    "uniformer_s_split",
    "uniformer_v2_b16",
    "uniformer_v2_l14",
    "uniformer_v2_l14_336",
    "uniformer_xs",
    "uniformer_xxs",
]
