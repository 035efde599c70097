"""swin3d_t and timesformer_base as a whole on a GPU, against their upstreams: `python -m benchmarks.gpu.models`."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.gpu.jobs import Job, main, natively
from vtfast.bench.measure import Case, Effort, Outputs, Way
from vtfast.bench.shapes import SWIN3D_T, TIMESFORMER_BASE, ModelShape
from vtfast.bench.upstreams.timesformer import best_upstream
from vtfast.bench.upstreams.upstream import (
    TORCHVISION,
    Upstream,
    clip_of,
    forward_way,
    in_float64,
    labels_of,
    training_way,
)

FORWARD, TRAINING = "forward", "training step"

_CLIPS = 8

# Of logits, and in training also of every gradient; each a share of the largest value of its tensor.
TOLERANCES = {FORWARD: 1e-1, TRAINING: 2.5e-1}


def jobs(device: str, quick: bool) -> Sequence[Job]:
    """Under autocast to bfloat16, several clips at a time; compiling takes long, so vtfast's comes last."""
    if quick:
        small = {"embed_dim": 64, "depth": 2, "num_heads": 2}
        swin = ModelShape(SWIN3D_T.model, (1, 3, 4, 64, 64))
        timesformer = ModelShape(TIMESFORMER_BASE.model, (2, 3, 4, 32, 32), small)
    else:
        swin, timesformer = (replace(shape, clip=(_CLIPS, *shape.clip[1:])) for shape in (SWIN3D_T, TIMESFORMER_BASE))
    compared = ("eager", "vtfast") if quick else ("eager", "compile", "vtfast")
    plain = [_job(swin, TORCHVISION, work, compared, device) for work in (TRAINING, FORWARD)]
    # A user who patches the attention would compile the model as well.
    compared = (*compared[:-1], "SDPA", *(() if quick else ("SDPA compiled",)), "vtfast")
    plain += [_job(timesformer, best_upstream(), work, compared, device) for work in (TRAINING, FORWARD)]
    if quick:
        return plain
    compiled, suffix = ("eager", "vtfast", "vtfast compiled"), ", vtfast compiled"
    return [*plain, *(_job(swin, TORCHVISION, work, compiled, device, suffix) for work in (TRAINING, FORWARD))]


def _job(shape: ModelShape, upstream: Upstream, work: str, names: Sequence[str], device: str, suffix: str = "") -> Job:
    case = Case(
        name=f"{shape.name}, autocast bfloat16, {work}{suffix}",
        ways=partial(_ways, shape, upstream, work, names, device),
        reference=partial(_reference, shape, upstream, work, device),
        tolerance=TOLERANCES[work],
        facts={
            "kind": "model",
            "shape": shape.name,
            "upstream": upstream.name,
            "mode": work,
            "dtype": "bfloat16",
        },
    )
    return Job(case, Effort(seconds=8.0, min_rounds=5, max_rounds=15), head_start=0.0, limit=150.0)


def _ways(shape: ModelShape, upstream: Upstream, work: str, names: Sequence[str], device: str) -> list[Way]:
    theirs = upstream.make(shape)
    ours = upstream.ours(shape, theirs)
    for model in (theirs, ours):
        model.to(device).train(work == TRAINING)
    models: dict[str, nn.Module] = {"eager": theirs, "vtfast": ours}
    models |= {name: patch(theirs) for name, patch in upstream.patched.items()}
    for name in names:
        if "compile" in name:
            base = name.removesuffix("compiled").removesuffix("compile").strip() or "eager"
            models[name] = cast(nn.Module, torch.compile(models[base], dynamic=False))
    clip, rename, made = clip_of(shape).to(device), upstream.rename(ours), []
    for name in names:
        if work == TRAINING:
            way = training_way(name, models[name], clip, rename, autocast=True)
        else:
            way = forward_way(name, models[name], clip, autocast=True)
        made.append(natively(way) if name.startswith("vtfast") else way)
    return made


def _reference(shape: ModelShape, upstream: Upstream, work: str, device: str) -> Outputs:
    """One clip at a time: the loss is the mean over clips, and so are its gradients."""
    theirs = upstream.make(shape)
    rename = upstream.rename(upstream.ours(shape, theirs))
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
