"""UniFormer against mmaction2, and against plain PyTorch in what mmaction2 lacks, on the same weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from uniformer_oracles import mmaction2_uniformer, plain_uniformer, small_uniformer, small_uniformer_light

CLIP = torch.randn(2, 3, 4, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
ODD_CLIP = torch.randn(2, 3, 5, 71, 102, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
SIZES = pytest.mark.parametrize("clip", [CLIP, ODD_CLIP], ids=["even", "odd"])
MODES = pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])


def gradients(outputs: Tensor | tuple[Tensor, ...], leaves: list[Tensor]) -> tuple[Tensor, ...]:
    """Of a weighted sum of all outputs, zero for what they do not depend on."""
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    draws = torch.Generator().manual_seed(0)
    total = sum((x * torch.randn(x.shape, generator=draws, dtype=x.dtype)).sum() for x in outputs)
    return torch.autograd.grad(total, leaves, materialize_grads=True)


def assert_agree(model: nn.Module, expected: Callable[[Tensor], Any], clip: Tensor) -> None:
    """The same outputs, and gradients by the clip and by every parameter."""
    clip = clip.clone().requires_grad_()
    parameters = dict(model.named_parameters())
    leaves = [clip, *parameters.values()]
    own, theirs = model(clip), expected(clip)
    torch.testing.assert_close(own, theirs)
    names = ["clip", *parameters]
    found, wanted = (dict(zip(names, gradients(x, leaves), strict=True)) for x in (own, theirs))
    torch.testing.assert_close(found, wanted)


@MODES
@SIZES
def test_agrees_with_mmaction2(clip: Tensor, training: bool) -> None:
    """Also in the statistics that batch normalisation keeps."""
    model = small_uniformer().double().train(training)
    oracle = mmaction2_uniformer(model)
    clip, other = clip.clone().requires_grad_(), clip.clone().requires_grad_()
    logits, expected = model(clip), oracle(other)
    torch.testing.assert_close(logits, expected)
    (d_clip, *_) = gradients(logits, [clip, *model.parameters()])
    torch.testing.assert_close(d_clip, gradients(expected, [other])[0])
    statistics = {f"backbone.{name}": value for name, value in model.named_buffers()}
    torch.testing.assert_close(statistics, dict(oracle.named_buffers()))


@MODES
@pytest.mark.parametrize(
    "config", [{}, {"split": True}, {"std": True}, {"layer_scale": 0.5, "split": True}, {"qkv_bias": False}], ids=str
)
def test_agrees_with_plain_pytorch(config: dict[str, Any], training: bool) -> None:
    model = small_uniformer(**config).double().train(training)
    assert_agree(model, plain_uniformer(model).logits, ODD_CLIP if training else CLIP)


@MODES
@pytest.mark.parametrize(
    ("config", "clip"),
    [
        ({}, CLIP),
        ({"keep": 0.7, "trade_off": 0.3}, ODD_CLIP),
        ({"layer_scale": 0.5}, ODD_CLIP),
        ({}, CLIP[:, :, :1, :32, :32]),
    ],
    ids=["published", "other-shares", "layer-scale", "one-token"],
)
def test_light_model_agrees_with_plain_pytorch(config: dict[str, Any], clip: Tensor, training: bool) -> None:
    """Both heads in training, and the one on all tokens in evaluation."""
    model = small_uniformer_light(**config).double().train(training)
    settings = {"keep": 0.5, "trade_off": 0.5} | config
    settings.pop("layer_scale", None)

    def expected(clip: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        both = plain_uniformer(model).light_logits(clip, **settings)
        return both if training else both[0]

    assert_agree(model, expected, clip)
