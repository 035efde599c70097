"""Small UniFormerV2s, and mmaction2's as their oracle."""

from typing import Any

import pytest
import torch
from oracles import randomise
from target import DEVICE
from torch import nn

from vtfast.bench.measure import NotSupportedError
from vtfast.bench.upstreams import uniformer_v2 as uniformer_v2_upstream
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
        oracle = uniformer_v2_upstream.mmaction2_twin(model, num_frames)
    except NotSupportedError as error:
        pytest.skip(str(error))
    return oracle.eval().to(DEVICE)
