"""timesformer-pytorch as an oracle, and the same small model of ours."""

import importlib
import warnings
from typing import Any

import pytest
from oracles import randomise
from torch import nn

from vtfast.models import TimeSformerLucidrains

# Two blocks, heads that do not add up to the tokens' channels, thirds of which do not add up either.
SMALL: dict[str, Any] = {
    "num_classes": 7,
    "image_size": 32,
    "patch_size": 8,
    "num_frames": 5,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 3,
    "head_dim": 16,
}
_UPSTREAM_NAMES = {"embed_dim": "dim", "num_heads": "heads", "head_dim": "dim_head", "in_channels": "channels"}


def small_lucidrains(**config: Any) -> TimeSformerLucidrains:
    """In evaluation mode, every parameter drawn so that it matters."""
    return randomise(TimeSformerLucidrains(**(SMALL | config)), seed=0).eval()


def small_upstream(**config: Any) -> nn.Module:
    """The model of `small_lucidrains` in timesformer-pytorch, with other weights; skips the test without it.

    It takes clips (B, T, C, H, W).
    """
    with warnings.catch_warnings():
        # `amt is 0` in it.
        warnings.simplefilter("ignore", SyntaxWarning)
        try:
            package = importlib.import_module("timesformer_pytorch")
        except ImportError:
            pytest.skip("needs timesformer-pytorch")
    options = {_UPSTREAM_NAMES.get(name, name): value for name, value in (SMALL | config).items()}
    return randomise(package.TimeSformer(**options), seed=1).eval()
