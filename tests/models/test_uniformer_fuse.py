"""Batch normalisation folded into the layers next to it."""

from collections.abc import Callable

import pytest
import torch
from target import DEVICE
from torch import nn
from uniformer_oracles import small_uniformer, small_uniformer_light

from vtfast.models.uniformer_stages import UniFormerStages

BUILDS = pytest.mark.parametrize("build", [small_uniformer, small_uniformer_light], ids=["plain", "light"])
CLIP = torch.randn(2, 3, 4, 64, 64, generator=torch.Generator().manual_seed(0)).to(DEVICE)


@pytest.mark.every_device
@BUILDS
def test_logits_and_features_stay(build: Callable[[], UniFormerStages]) -> None:
    model = build()
    logits, features = model(CLIP), model.forward_features(CLIP)
    assert model.fuse() is model
    torch.testing.assert_close(model(CLIP), logits)
    torch.testing.assert_close(model.forward_features(CLIP), features)
    fused = model(CLIP)
    assert torch.equal(model.fuse()(CLIP), fused), "a second call changes nothing"


@BUILDS
def test_exactly_in_float64(build: Callable[[], UniFormerStages]) -> None:
    model = build().double()
    logits = model(CLIP.double())
    torch.testing.assert_close(model.fuse()(CLIP.double()), logits)


@BUILDS
def test_only_the_last_norm_is_left(build: Callable[[], UniFormerStages]) -> None:
    model = build()
    names = set(model.state_dict())
    removed = names - set(model.fuse().state_dict())
    assert [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm3d)] == ["norm"]
    expected = {name for name in names if name.startswith(("blocks1.0.norm", "blocks2.0.norm"))}
    expected |= {name for name in names if name.startswith(("patch_embed1.proj.1.", "patch_embed1.proj.4."))}
    assert removed == expected


def test_refuses_training_mode() -> None:
    model = small_uniformer().train()
    with pytest.raises(RuntimeError, match=r"fuse\(\) needs a model in evaluation mode, got one in training mode"):
        model.fuse()


def test_synchronised_norms() -> None:
    """Those that PyTorch puts in place of batch normalisation see the same tokens, and are folded likewise."""
    model = small_uniformer()
    logits = model(CLIP)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(small_uniformer())
    assert isinstance(converted.blocks1[0].norm1, nn.SyncBatchNorm)
    torch.testing.assert_close(converted(CLIP), logits)
    torch.testing.assert_close(converted.fuse()(CLIP), logits)
