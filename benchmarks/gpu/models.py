"""swin3d_t as a whole on a GPU, torchvision's against vtfast's: `python -m benchmarks.gpu.models`."""

import sys
from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.gpu.jobs import Job, main, natively
from benchmarks.measure import Case, Effort, Outputs, Way
from benchmarks.shapes import SWIN3D_T, ModelShape
from benchmarks.upstream import (
    clip_of,
    forward_way,
    in_float64,
    labels_of,
    rename_gradients,
    torchvision_model,
    training_way,
    vtfast_model,
)

FORWARD, TRAINING = "forward", "training step"

_CLIPS = 8

# Of logits, and in training also of every gradient; each a share of the largest value of its tensor.
TOLERANCES = {FORWARD: 1e-1, TRAINING: 2.5e-1}


def jobs(device: str, quick: bool) -> Sequence[Job]:
    """Under autocast to bfloat16, several clips at a time; compiling takes long, so vtfast's comes last."""
    clip = (1, 3, 4, 64, 64) if quick else (_CLIPS, *SWIN3D_T.clip[1:])
    shape = ModelShape(SWIN3D_T.model, clip)
    compared = ("eager", "vtfast") if quick else ("eager", "compile", "vtfast")
    plain = [_job(shape, work, compared, device) for work in (TRAINING, FORWARD)]
    if quick:
        return plain
    compiled = ("eager", "vtfast", "vtfast compiled")
    return [*plain, *(_job(shape, work, compiled, device, ", vtfast compiled") for work in (TRAINING, FORWARD))]


def _job(shape: ModelShape, work: str, names: Sequence[str], device: str, suffix: str = "") -> Job:
    case = Case(
        name=f"{shape.name}, autocast bfloat16, {work}{suffix}",
        ways=partial(_ways, shape, work, names, device),
        reference=partial(_reference, shape, work, device),
        tolerance=TOLERANCES[work],
        facts={"kind": "model", "shape": shape.name, "mode": work, "dtype": "bfloat16"},
    )
    return Job(case, Effort(seconds=8.0, min_rounds=5, max_rounds=15), head_start=0.0, limit=150.0)


def _ways(shape: ModelShape, work: str, names: Sequence[str], device: str) -> list[Way]:
    theirs = torchvision_model(shape.model)
    ours = vtfast_model(shape.model, theirs)
    for model in (theirs, ours):
        model.to(device).train(work == TRAINING)
    models: dict[str, nn.Module] = {
        "eager": theirs,
        "vtfast": ours,
        "compile": _compiled(theirs),
        "vtfast compiled": _compiled(ours),
    }
    clip, made = clip_of(shape).to(device), []
    for name in names:
        model = models[name]
        if work == TRAINING:
            way = training_way(name, model, clip, rename_gradients(ours), autocast=True)
        else:
            way = forward_way(name, model, clip, autocast=True)
        made.append(natively(way) if name.startswith("vtfast") else way)
    return made


def _compiled(model: nn.Module) -> nn.Module:
    return cast(nn.Module, torch.compile(model, dynamic=False))


def _reference(shape: ModelShape, work: str, device: str) -> Outputs:
    """One clip at a time: the loss is the mean over clips, and so are its gradients."""
    theirs = torchvision_model(shape.model)
    rename = rename_gradients(vtfast_model(shape.model, theirs))
    exact, clips = in_float64(theirs).to(device).train(work == TRAINING), clip_of(shape).to(device).double()
    if work == FORWARD:
        with torch.no_grad():
            return (torch.cat([exact(clip) for clip in clips.split(1)]),)
    logits = []
    for clip, label in zip(clips.split(1), labels_of(clips), strict=True):
        logits.append(exact(clip))
        (F.cross_entropy(logits[-1], label[None]) / len(clips)).backward()
    gradients = rename({name: x.grad for name, x in exact.named_parameters() if x.grad is not None})
    return (torch.cat(logits).detach(), *(gradient for _, gradient in sorted(gradients.items())))


if __name__ == "__main__":
    sys.exit(main(jobs))
