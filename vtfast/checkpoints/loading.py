"""Loading a checkpoint into a model: recognised, converted, checked as a whole and only then copied."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from vtfast.checkpoints import (
    mvit_image,
    mvit_mmaction2,
    mvit_pytorchvideo,
    mvit_slowfast,
    mvit_torchvision,
    swin_image,
    timesformer_huggingface,
    timesformer_lucidrains,
    timesformer_mmaction2,
    timesformer_official,
    uniformer_image,
    uniformer_mmaction2,
    uniformer_official,
    uniformer_v2_clip,
    uniformer_v2_mmaction2,
    uniformer_v2_official,
    video_swin_official,
    video_swin_torchvision,
    vit_image,
    vtfast_saved,
)
from vtfast.checkpoints.head_rows import HEADS, with_head_rows
from vtfast.checkpoints.reading import read_state_dict, unwrap


class Upstream(Protocol):
    """What a module of one upstream's dialect offers."""

    NAME: str

    def recognises(self, state_dict: Mapping[str, Tensor]) -> bool:
        """Whether the names are this upstream's."""

    def convert(self, state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        """The same weights under the names and in the shapes of `model`, as far as they can be."""


class ImageUpstream(Upstream, Protocol):
    """What the module of an image model's dialect also offers."""

    KEPT: re.Pattern[str]
    """Beginnings of the names that an image model may lack: the video model keeps its own values there."""


# In this order: image models have the names of video models, MViT those of a ViT, mmaction2's those of the authors'.
UPSTREAMS: tuple[Upstream, ...] = (
    vtfast_saved,
    video_swin_torchvision,
    swin_image,
    video_swin_official,
    mvit_image,
    mvit_slowfast,
    mvit_torchvision,
    mvit_pytorchvideo,
    mvit_mmaction2,
    timesformer_official,
    timesformer_huggingface,
    timesformer_mmaction2,
    timesformer_lucidrains,
    vit_image,
    uniformer_image,
    uniformer_mmaction2,
    uniformer_official,
    uniformer_v2_mmaction2,
    uniformer_v2_official,
    uniformer_v2_clip,
)

_MAX_LISTED = 8


@dataclass(frozen=True)
class LoadReport:
    """What became of a checkpoint; the last three are empty after a strict load.

    Args:
        upstream: whose names the checkpoint has, "unknown" if nobody's.
        loaded: entries of the model that were set.
        kept: entries of the model that weights of images have no counterpart for; they stay as they were.
        missing: entries of the model that the checkpoint lacks.
        unexpected: entries of the checkpoint that the model lacks.
        mismatched: entries of another shape: name, shape in the model, shape in the checkpoint.
    """

    upstream: str
    loaded: tuple[str, ...]
    kept: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]


def load_checkpoint(
    model: nn.Module,
    source: str | os.PathLike[str] | Mapping[str, Tensor],
    *,
    strict: bool = True,
    head_rows: Sequence[int] | None = None,
) -> LoadReport:
    """Loads published or own weights into `model`; on any error the model is as it was.

    The upstream is recognised by its names. For Video Swin: torchvision, the official repository, mmaction2, 2D image
    Swin (official, timm, torchvision; inflated to 3D). For TimeSformer: the official repository, Hugging Face,
    mmaction2, timesformer-pytorch, 2D image ViT (timm; inflated). For MViT: SlowFast, torchvision, PyTorchVideo,
    mmaction2, 2D image MViT (SlowFast, facebookresearch/mvit, PyTorchVideo; inflated). For UniFormer: the official
    repository, mmaction2, 2D image UniFormer (inflated). For UniFormerV2: the official repository, mmaction2, CLIP's
    image tower (OpenAI, OpenCLIP, Hugging Face; inflated). And models saved by vtfast itself. Positions that a
    TimeSformer learned at another size are resized, see its `position_resize`; those of an MViT and its relative
    positions are resized as SlowFast does, those of a UniFormerV2 bicubically. A model without a head (`num_classes=0`,
    `features_only`) takes the weights of the body and leaves those of the head.

    Args:
        model: a model of `create_model`.
        source: a file as for `read_state_dict`, or a state dict.
        strict: whether every entry must fit. If not, what does not fit stays as it is in the model, and the report
            lists it; at least one weight must fit all the same.
        head_rows: rows of the checkpoint's head, in the order of the model's classes: `label_rows` finds them by
            name, `range(400)` are those of Kinetics-400 in a Kinetics-710 head. All rows if None.

    Returns:
        What was loaded and what was not.

    Raises:
        FileNotFoundError, ImportError, ValueError: as `read_state_dict`.
        ValueError: the checkpoint does not fit; the message lists what is missing, unexpected or of another shape.
        ValueError: `head_rows` are not rows of the checkpoint's head, or there is no head.
    """
    if isinstance(source, Mapping):
        origin, state_dict = "the state dict", unwrap(source, "the state dict")
    else:
        origin, state_dict = str(source), read_state_dict(source)
    model = _inner(model)
    upstream = next((u for u in UPSTREAMS if u.recognises(state_dict)), None)
    if upstream:
        state_dict = upstream.convert(state_dict, model)
    state_dict = _without_unwanted(state_dict, model)
    if head_rows is not None:
        state_dict = with_head_rows(state_dict, head_rows)
    report = _compare(model.state_dict(), state_dict, upstream)
    if (strict and (report.missing or report.unexpected or report.mismatched)) or not report.loaded:
        raise ValueError(_explain(report, origin, type(model).__name__))
    with torch.no_grad():
        model.load_state_dict({name: state_dict[name] for name in report.loaded}, strict=False)
    return report


def _inner(model: nn.Module) -> nn.Module:
    """The model inside a `FeatureExtractor`, else the model itself."""
    inner = getattr(model, "model", None)
    return inner if isinstance(inner, nn.Module) else model


def _without_unwanted(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Drops the head of a model that has none, and what `prune_intermediate_layers` removed."""
    pruned: tuple[str, ...] = getattr(model, "pruned", ())
    if getattr(model, "num_classes", None) == 0:
        pruned = (*pruned, *HEADS)
    return {name: value for name, value in state_dict.items() if not name.startswith(pruned)}


def _compare(own: Mapping[str, Tensor], given: Mapping[str, Tensor], upstream: Upstream | None) -> LoadReport:
    may_lack: re.Pattern[str] | None = getattr(upstream, "KEPT", None)
    lacking = [name for name in own if name not in given]
    kept = tuple(name for name in lacking if may_lack and may_lack.match(name))
    common = [name for name in own if name in given]
    mismatched = tuple(
        (name, tuple(own[name].shape), tuple(given[name].shape))
        for name in common
        if own[name].shape != given[name].shape
    )
    wrong = {name for name, *_ in mismatched}
    return LoadReport(
        upstream=upstream.NAME if upstream else "unknown",
        loaded=tuple(name for name in common if name not in wrong),
        kept=kept,
        missing=tuple(name for name in lacking if name not in kept),
        unexpected=tuple(name for name in given if name not in own),
        mismatched=mismatched,
    )


def _explain(report: LoadReport, origin: str, model_name: str) -> str:
    known = ", ".join(upstream.NAME for upstream in UPSTREAMS)
    whose = f"names of {report.upstream}" if report.upstream != "unknown" else f"names of none of {known}"
    lines = [f"{origin} ({whose}) does not fit {model_name}, nothing was loaded:"]
    shapes = (f"{name} (model {own}, checkpoint {given})" for name, own, given in report.mismatched)
    lines += _listed("missing", report.missing) + _listed("unexpected", report.unexpected)
    lines += _listed("of another shape", shapes)
    classes = {given[0] for name, _, given in report.mismatched if name.startswith(HEADS)}
    if classes and all(name.startswith(HEADS) for name, *_ in report.mismatched):
        lines.append(
            f"  The checkpoint's head has {classes.pop()} classes: create the model with that num_classes (and call "
            "reset_classifier afterwards for another), or pass strict=False to load_checkpoint to keep the own head."
        )
    return "\n".join(lines)


def _listed(title: str, items: Iterable[str]) -> list[str]:
    items = list(items)
    if not items:
        return []
    more = f", and {len(items) - _MAX_LISTED} more" if len(items) > _MAX_LISTED else ""
    return [f"  {title} ({len(items)}): {', '.join(items[:_MAX_LISTED])}{more}"]
