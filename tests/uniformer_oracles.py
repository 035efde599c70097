"""Small UniFormers, and mmaction2's as their oracle."""

from typing import Any

import pytest
import uniformer_dialects
from oracles import randomise
from plain_uniformer import PlainUniFormer
from target import DEVICE
from torch import nn

from vtfast.bench.measure import NotSupportedError
from vtfast.bench.upstreams import mmaction2_files
from vtfast.bench.upstreams import uniformer as uniformer_upstream
from vtfast.models import UniFormer, UniFormerLight
from vtfast.models.uniformer_stages import UniFormerStages

# Four stages of one or two narrow blocks: every branch in milliseconds.
SMALL: dict[str, Any] = {
    "depths": (1, 1, 2, 1),
    "embed_dims": (8, 16, 16, 24),
    "head_dim": 8,
    "num_classes": 7,
    "drop_path_rate": 0.0,
}


def small_uniformer(**config: Any) -> UniFormer:
    """A small UniFormer in evaluation mode, every parameter and statistic drawn so that it matters."""
    return randomise(UniFormer(**(SMALL | config)), seed=0).eval().to(DEVICE)


def small_uniformer_light(**config: Any) -> UniFormerLight:
    """A small light UniFormer, likewise."""
    return randomise(UniFormerLight(**(SMALL | config)), seed=0).eval().to(DEVICE)


def mmaction2_uniformer(model: UniFormer) -> nn.Module:
    """mmaction2's model of the architecture of `model`, with a head and its weights; skips without mmaction2."""
    try:
        mmaction2_files.uniformer_class()
    except NotSupportedError as error:
        pytest.skip(str(error))
    oracle = uniformer_upstream.mmaction2_twin(model).to(DEVICE)
    oracle.load_state_dict(uniformer_dialects.uniformer_mmaction2(model.state_dict()))
    return oracle.to(model.head.weight.dtype).train(model.training)


def plain_uniformer(model: UniFormerStages) -> PlainUniFormer:
    """The model in plain PyTorch, differentiable by the parameters of `model`."""
    weights = uniformer_dialects.uniformer(dict(model.named_parameters()) | dict(model.named_buffers()))
    attention = model.blocks3[0].attn
    return PlainUniFormer(weights, attention.qkv.in_features // attention.num_heads, model.training)
