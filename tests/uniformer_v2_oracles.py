"""Small UniFormerV2s, and mmaction2's as their oracle."""

from typing import Any

import pytest
import torch
from oracles import randomise
from target import DEVICE
from torch import nn

from benchmarks import mmaction2_models
from benchmarks.measure import NotSupportedError
from vtfast.models import UniFormerV2

# Three narrow blocks, global ones behind the last two, on clips of 4 frames of 48 x 48: every branch in milliseconds.
SMALL: dict[str, Any] = {
    "image_size": 48,
    "embed_dim": 24,
    "depth": 3,
    "num_heads": 3,
    "global_depth": 2,
    "num_classes": 7,
    "drop_path_rate": 0.0,
    "global_drop_path_rate": 0.0,
}
SIZE = (4, 48, 48)


def small_uniformer_v2(**config: Any) -> UniFormerV2:
    """A small UniFormerV2 in evaluation mode, every parameter and statistic drawn so that it matters."""
    model = randomise(UniFormerV2(**(SMALL | config)), seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return model.eval().to(DEVICE)


def mmaction2_uniformer_v2(model: UniFormerV2, num_frames: int = SIZE[0]) -> nn.Module:
    """mmaction2's model of the architecture of `model`, without a head, for so many frames; skips without it."""
    try:
        build = mmaction2_models.uniformer_v2_class()
    except NotSupportedError as error:
        pytest.skip(str(error))
    dim, depth, temporal = model.num_features, len(model.blocks), model.design == "temporal"
    attention = model.blocks[0].attn
    last = model.blocks[-1]
    oracle = build(
        input_resolution=model.places[0] * model.patch_size[0],
        patch_size=model.patch_size[0],
        width=dim,
        layers=depth,
        heads=attention.num_heads,
        backbone_drop_path_rate=last.drop_path.rate,
        t_size=num_frames,
        temporal_downsample=temporal,
        dw_reduction=1.5,
        no_lmhra=not temporal,
        double_lmhra=True,
        return_list=list(range(model.first_global, depth)),
        n_layers=depth - model.first_global,
        n_dim=dim,
        n_head=attention.num_heads,
        drop_path_rate=model.global_blocks[-1].drop_path.rate,
        mlp_dropout=[block.mlp.dropout for block in model.global_blocks],
        clip_pretrained=False,
    )
    return oracle.eval().to(DEVICE)
