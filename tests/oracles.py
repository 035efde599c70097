"""Upstream packages as oracles."""

import contextlib
import importlib
from types import ModuleType
from typing import Any, TypeVar

import pytest
import torch
from target import DEVICE
from torch import Tensor, nn

from vtfast.bench.measure import NotSupportedError
from vtfast.bench.upstreams import mvit as mvit_upstream
from vtfast.bench.upstreams import upstream
from vtfast.models import MViT, TimeSformer, VideoSwin

Model = TypeVar("Model", bound=nn.Module)


def torchvision_models() -> ModuleType:
    """`torchvision.models`; skips the test where torchvision is not installed."""
    try:
        upstream.torchvision_video()
    except NotSupportedError as error:
        pytest.skip(str(error))
    return importlib.import_module("torchvision.models")


def torchvision_video() -> ModuleType:
    """`torchvision.models.video`; skips likewise."""
    video: ModuleType = torchvision_models().video
    return video


def torchvision_swin(name: str = "swin3d_t", seed: int = 0) -> nn.Module:
    """A Video Swin of torchvision in evaluation mode, every parameter drawn so that it matters."""
    model: nn.Module = getattr(torchvision_video(), name)()
    return randomise(model, seed).eval().to(DEVICE)


# Four stages of one or two narrow blocks: every branch of the architecture in a fraction of a second.
SMALL_SWIN: dict[str, Any] = {
    "embed_dim": 16,
    "depths": (2, 2, 1, 1),
    "num_heads": (1, 2, 4, 4),
    "window": (4, 3, 3),
    "num_classes": 7,
}


def small_swin(**config: Any) -> VideoSwin:
    """A small Video Swin in evaluation mode, every parameter drawn so that it matters."""
    return randomise(VideoSwin(**(SMALL_SWIN | config)), seed=0).eval().to(DEVICE)


def small_torchvision_swin(num_classes: int = SMALL_SWIN["num_classes"]) -> nn.Module:
    """The model of `small_swin` in torchvision, with other weights."""
    model: nn.Module = torchvision_video().swin_transformer.SwinTransformer3d(
        patch_size=[2, 4, 4],
        embed_dim=SMALL_SWIN["embed_dim"],
        depths=list(SMALL_SWIN["depths"]),
        num_heads=list(SMALL_SWIN["num_heads"]),
        window_size=list(SMALL_SWIN["window"]),
        num_classes=num_classes,
    )
    return randomise(model, seed=1).eval().to(DEVICE)


def randomise(model: Model, seed: int) -> Model:
    """Weights that keep the scale of the activations; biases, norms, statistics and tables far from zero and one."""
    generator = torch.Generator().manual_seed(seed)

    def normal(parameter: Tensor, std: float, mean: float = 0.0) -> None:
        parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * std + mean)

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("relative_position_bias_table"):
                normal(parameter, 1.0)
            elif parameter.dim() > 1:
                normal(parameter, parameter[0].numel() ** -0.5)
            elif name.endswith("bias"):
                normal(parameter, 0.5)
            else:
                normal(parameter, 0.2, mean=1.0)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                normal(buffer, 0.5)
            elif name.endswith("running_var"):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return model


# Two narrow blocks on clips of 3 frames of 48 x 48: every branch in milliseconds.
SMALL_TIMESFORMER: dict[str, Any] = {
    "image_size": 48,
    "num_frames": 3,
    "embed_dim": 48,
    "depth": 2,
    "num_heads": 4,
    "num_classes": 7,
}


def small_timesformer(**config: Any) -> TimeSformer:
    """A small TimeSformer in evaluation mode, every parameter drawn so that it matters."""
    return randomise(TimeSformer(**(SMALL_TIMESFORMER | config)), seed=0).eval().to(DEVICE)


def huggingface_timesformer(
    attention_type: str = "divided", size: tuple[int, int, int] = (3, 48, 48), num_classes: int = 7
) -> nn.Module:
    """The model of `small_timesformer` in transformers for clips of `size`, with other weights; skips without it."""
    with contextlib.suppress(NotSupportedError):
        upstream.torchvision_video()  # which transformers imports if it is there
    transformers = pytest.importorskip("transformers")
    frames, height, width = size
    names = {"divided": "divided_space_time", "joint": "joint_space_time", "space": "space_only"}
    config = transformers.TimesformerConfig(
        image_size=width,
        num_frames=frames,
        hidden_size=SMALL_TIMESFORMER["embed_dim"],
        num_hidden_layers=SMALL_TIMESFORMER["depth"],
        num_attention_heads=SMALL_TIMESFORMER["num_heads"],
        intermediate_size=4 * SMALL_TIMESFORMER["embed_dim"],
        attention_type=names[attention_type],
        num_labels=num_classes,
    )
    model: nn.Module = transformers.TimesformerForVideoClassification(config)
    # Its blocks only ask for the width; a grid that is no square comes with its own positions.
    places = torch.empty(1, 1 + height // 16 * (width // 16), SMALL_TIMESFORMER["embed_dim"])
    model.timesformer.embeddings.position_embeddings = nn.Parameter(places)
    return randomise(model, seed=1).eval().to(DEVICE)


# Three stages of narrow blocks for clips of 4 frames of 32 x 32, whose grid is (2, 8, 8): every branch in milliseconds.
SMALL_MVIT: dict[str, Any] = {
    "image_size": 32,
    "num_frames": 4,
    "embed_dim": 16,
    "depths": (1, 2, 1),
    "kv_stride": (1, 4, 4),
    "num_classes": 7,
}
SMALL_MVIT_V2: dict[str, Any] = SMALL_MVIT | {
    "pool_all_queries": True,
    "expand_in_attention": True,
    "residual_pooling": True,
    "abs_pos": False,
    "rel_pos_spatial": True,
    "rel_pos_temporal": True,
}


def small_mvit(**config: Any) -> MViT:
    """A small MViT in evaluation mode, every parameter drawn so that it matters."""
    return randomise(MViT(**(SMALL_MVIT | config)), seed=0).eval().to(DEVICE)


def small_mvit_v2(**config: Any) -> MViT:
    """A small MViTv2, likewise."""
    return small_mvit(**(SMALL_MVIT_V2 | config))


def torchvision_mvit(model: MViT) -> nn.Module:
    """Torchvision's model of the architecture of `model`, for the sizes it was made for, with other weights."""
    torchvision_video()  # or skips
    return randomise(mvit_upstream.torchvision_twin(model), seed=1).eval().to(DEVICE)


def pytorchvideo_mvit(model: MViT) -> nn.Module:
    """PyTorchVideo's model of the architecture of `model`, likewise (of images if for one frame); skips without it.

    The norms behind its poolings have an eps of 1e-5 in the published package, and of 1e-6 here, as in its repository
    and in the code that its weights were trained with.
    """
    torchvision_video()  # which it imports
    pytest.importorskip("pytorchvideo")
    build = importlib.import_module("pytorchvideo.models.vision_transformers").create_multiscale_vision_transformers
    first, widths = model.blocks[0].attn, [[start, 2.0] for start in model.stage_ends[:-1]]
    kernel, stride = first.pool_k.kernel, first.pool_k.stride
    if kernel == tuple(size + 1 if size > 1 else 1 for size in stride):
        kernel = None
    patches = model.patch_embed.proj
    frames, *sides = (size * step for size, step in zip(model.learned_grid, patches.stride, strict=True))
    oracle: nn.Module = build(
        spatial_size=sides,
        temporal_size=frames,
        cls_embed_on=model.cls_token is not None,
        depth=len(model.blocks),
        patch_embed_dim=patches.out_channels,
        use_2d_patch=frames == 1,
        conv_patch_embed_kernel=patches.kernel_size[frames == 1 :],
        conv_patch_embed_stride=patches.stride[frames == 1 :],
        conv_patch_embed_padding=patches.padding[frames == 1 :],
        num_heads=first.num_heads,
        pooling_mode=first.pool_k.mode,
        pool_first=first.pool_first,
        embed_dim_mul=widths,
        atten_head_mul=widths,
        pool_q_stride_size=[[start, *model.blocks[start].attn.pool_q.stride] for start in model.stage_ends[:-1]],
        pool_kv_stride_adaptive=list(stride),
        pool_kvq_kernel=kernel,
        head_num_classes=model.num_classes,
    )
    for name, module in oracle.named_modules():
        if name.endswith(("norm_q", "norm_k", "norm_v")):
            module.eps = 1e-6
    return randomise(oracle, seed=1).eval().to(DEVICE)
