"""Whole models: an upstream's against vtfast's with the same weights, in inference and in training."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.measure import Case, Outputs, Way
from benchmarks.scope import Scope
from benchmarks.shapes import ModelShape
from benchmarks.upstream import (
    Rename,
    Upstream,
    clip_of,
    forward_way,
    in_float64,
    linear_layers_way,
    training_way,
)

FORWARD, PURE_BFLOAT16, AUTOCAST, TRAINING = (
    "forward, float32",
    "forward, bfloat16",
    "forward, autocast bfloat16",
    "training step, float32",
)

# Of logits, and in training also of every gradient; each a share of the largest value of its tensor.
TOLERANCES = {FORWARD: 1e-4, PURE_BFLOAT16: 1e-1, AUTOCAST: 1e-1, TRAINING: 2e-3}

NOTES = (
    "Clip to logits, the upstream's model and vtfast's with the same weights; a training step is forward, loss and "
    "backward, without stochastic depth and optimiser. `linear layers` are those of the model on their own, the "
    "floor for any implementation with the same GEMM: they do not include the patch embedding's convolution."
)


def model_cases(scope: Scope, shape: ModelShape, upstream: Upstream) -> Iterator[Case]:
    """A case for each kind of work."""
    for work in (FORWARD, PURE_BFLOAT16, AUTOCAST, TRAINING):
        if scope.quick and work == AUTOCAST:
            continue
        yield Case(
            name=work,
            ways=partial(_ways, scope, shape, upstream, work),
            reference=partial(_reference, shape, upstream, work),
            tolerance=TOLERANCES[work],
        )


def _ways(scope: Scope, shape: ModelShape, upstream: Upstream, work: str) -> list[Way]:
    theirs = upstream.make(shape)
    ours = upstream.ours(shape, theirs)
    dtype = torch.bfloat16 if work in (PURE_BFLOAT16, AUTOCAST) else torch.float32
    # In evaluation mode, or batch normalisation would learn from the clip.
    shown = ours if upstream.hides_linear_layers else theirs
    linears = linear_layers_way(shown.eval(), clip_of(shape), dtype, training=work == TRAINING)
    for model in (theirs, ours):
        model.to(torch.bfloat16 if work == PURE_BFLOAT16 else torch.float32)
        upstream.in_mode(model, training=work == TRAINING)
    models = {"eager": theirs}
    if scope.compile:
        models["compile"] = torch.compile(theirs, dynamic=False)
    models |= {name: patch(theirs) for name, patch in upstream.patched.items()}
    if scope.compile:
        models |= {f"{name} compiled": torch.compile(models[name], dynamic=False) for name in upstream.compiled}
    models["vtfast"] = ours
    if scope.compile and work == FORWARD:
        models["vtfast compiled"] = torch.compile(ours, dynamic=False)
    clip = clip_of(shape).to(torch.bfloat16 if work == PURE_BFLOAT16 else torch.float32)
    rename = upstream.rename(ours)
    return [*(_way(name, model, clip, work, rename) for name, model in models.items()), linears]


def _reference(shape: ModelShape, upstream: Upstream, work: str) -> Outputs:
    theirs = upstream.make(shape)
    rename = upstream.rename(upstream.ours(shape, theirs))
    exact = upstream.in_mode(in_float64(theirs), training=work == TRAINING)
    way = _way("float64", exact, clip_of(shape).double(), TRAINING if work == TRAINING else FORWARD, rename)
    assert way.outputs is not None
    return way.outputs(way.run())


def _way(name: str, model: nn.Module, clip: Tensor, work: str, rename: Rename) -> Way:
    if work == TRAINING:
        return training_way(name, model, clip, rename)
    return forward_way(name, model, clip, autocast=work == AUTOCAST)
