"""MViTs as peers: torchvision's."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import vtfast
from vtfast.bench.shapes import ModelShape
from vtfast.bench.upstreams.upstream import Upstream, torchvision_video
from vtfast.checkpoints import mvit_torchvision
from vtfast.models import MViT


def torchvision_twin(model: MViT) -> nn.Module:
    """Torchvision's model of the architecture of `model`, for the sizes it was made for, with weights of its own.

    Raises:
        NotSupportedError: torchvision is not installed.
    """
    module = torchvision_video().mvit
    blocks = [
        module.MSBlockConfig(
            num_heads=block.attn.num_heads,
            input_channels=block.norm1.normalized_shape[0],
            output_channels=block.mlp.fc2.out_features,
            kernel_q=[] if block.attn.pool_q is None else list(block.attn.pool_q.kernel),
            kernel_kv=[] if block.attn.pool_k is None else list(block.attn.pool_k.kernel),
            stride_q=[] if block.attn.pool_q is None else list(block.attn.pool_q.stride),
            stride_kv=[] if block.attn.pool_k is None else list(block.attn.pool_k.stride),
        )
        for block in model.blocks
    ]
    stride = model.patch_embed.proj.stride
    frames, height, width = (size * step for size, step in zip(model.learned_grid, stride, strict=True))
    first: Any = model.blocks[0]
    twin: nn.Module = module.MViT(
        spatial_size=(height, width),
        temporal_size=frames,
        block_setting=blocks,
        residual_pool=first.attn.residual,
        residual_with_cls_embed=first.attn.residual_prefix,
        rel_pos_embed=first.attn.rel_pos_t is not None,
        proj_after_attn=first.expand_in_attention,
        num_classes=model.num_classes,
        patch_embed_kernel=model.patch_embed.proj.kernel_size,
        patch_embed_stride=stride,
        patch_embed_padding=model.patch_embed.proj.padding,
    )
    return twin


def _torchvision_mvit(shape: ModelShape) -> nn.Module:
    """For the sizes of the clip, and without dropout."""
    ours: MViT = vtfast.create_model(shape.model, **_options(shape), **shape.config)
    torch.manual_seed(0)
    model = torchvision_twin(ours)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def _options(shape: ModelShape) -> dict[str, Any]:
    _, _, frames, height, width = shape.clip
    return {"num_frames": frames, "image_size": (height, width), "drop_path_rate": 0.0, "drop_rate": 0.0}


def _with_joined_norms(gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weight and bias of each norm behind a pooling as one: a softmax does not see the bias of keys.

    Its gradient is rounding, which is right by any share of the weight's gradient and by none of its own.
    """
    joined = dict(gradients)
    for name in gradients:
        if name.endswith(".norm.weight"):
            norm = name.removesuffix(".weight")
            joined[norm] = torch.stack([joined.pop(name), joined.pop(f"{norm}.bias")])
    return joined


TORCHVISION_MVIT = Upstream(
    "torchvision", _torchvision_mvit, mvit_torchvision.convert, options=_options, compared=_with_joined_norms
)
