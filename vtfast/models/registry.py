"""Models by name."""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from os import PathLike
from typing import Any, TypeVar

from torch import Tensor, nn

from vtfast.checkpoints import load_checkpoint
from vtfast.models.features import FeatureExtractor
from vtfast.models.preprocessing import Preprocessing

__all__ = ["ModelConfig", "create_model", "list_models", "model_config", "register_model"]

Builder = TypeVar("Builder", bound=Callable[..., nn.Module])


@dataclass(frozen=True)
class ModelConfig:
    """What was published with a model.

    Args:
        name: name in the registry.
        builder: makes the model from keyword options.
        num_classes: classes of the published head.
        preprocessing: how its clips are sampled, resized, cropped and normalised.
    """

    name: str
    builder: Callable[..., nn.Module]
    num_classes: int
    preprocessing: Preprocessing


_configs: dict[str, ModelConfig] = {}


def register_model(*, preprocessing: Preprocessing, num_classes: int = 400) -> Callable[[Builder], Builder]:
    """Decorator: makes a function that builds a model from keyword options known under its name.

    Args:
        preprocessing: the published pre-processing.
        num_classes: classes of the published head.

    Raises:
        ValueError: the name is taken.
    """

    def register(builder: Builder) -> Builder:
        name = builder.__name__
        if name in _configs:
            raise ValueError(f"a model named {name!r} is registered already")
        _configs[name] = ModelConfig(name, builder, num_classes, preprocessing)
        return builder

    return register


def list_models(pattern: str = "*") -> list[str]:
    """Registered names that match a shell pattern, sorted."""
    return sorted(fnmatch.filter(_configs, pattern))


def model_config(name: str) -> ModelConfig:
    """The published configuration of a registered model.

    Raises:
        ValueError: no model has this name; the message names similar ones.
    """
    if name not in _configs:
        close = get_close_matches(name, _configs, n=3, cutoff=0.5) or list_models()
        raise ValueError(f"name must be a registered model, such as {', '.join(close)}, got {name!r}")
    return _configs[name]


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    checkpoint: str | PathLike[str] | Mapping[str, Tensor] | None = None,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
    head_rows: Sequence[int] | None = None,
    **config: Any,
) -> nn.Module:
    """A model by name, with random or given weights, in training mode.

    Args:
        name: one of `list_models()`.
        num_classes: classes of the head, 0 for none. None takes the published number: 400, or 174 for models of
            Something-Something.
        checkpoint: file (.pth, .pt, .pyth, .safetensors) or state dict of any known upstream, see `load_checkpoint`.
        features_only: return a `FeatureExtractor`, which gives the feature maps (B, C, T, H, W) of the stages.
        out_indices: stages whose maps `features_only` gives; all if None.
        head_rows: rows of the checkpoint's head to take as classes, see `load_checkpoint`.
        **config: options of the architecture that differ from the published ones.

    Returns:
        The model; `model.preprocessing` is its published pre-processing.

    Raises:
        ValueError: no model has this name, an option is out of range, or the checkpoint does not fit.
        TypeError: the architecture has no such option.
    """
    published = model_config(name)
    if out_indices is not None and not features_only:
        raise ValueError("out_indices needs features_only=True")
    if head_rows is not None and checkpoint is None:
        raise ValueError("head_rows needs a checkpoint")
    classes = published.num_classes if num_classes is None else num_classes
    model = published.builder(num_classes=0 if features_only else classes, **config)
    model.preprocessing = published.preprocessing  # type: ignore[assignment]
    if checkpoint is not None:
        load_checkpoint(model, checkpoint, head_rows=head_rows)
    if not features_only:
        return model
    extractor = FeatureExtractor(model, out_indices)
    extractor.preprocessing = published.preprocessing  # type: ignore[assignment]
    return extractor
