"""Whole models: an upstream's against vtfast's with the same weights, in inference and in training.

Clip to logits; a training step is forward, loss and backward, without stochastic depth and optimiser. "linear layers"
are those of the model on their own, the floor for any implementation with the same GEMM: they do not include the patch
embedding's convolution. A model that no installable package has is compared with vtfast's own reference.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
from torch import nn

import vtfast
from vtfast.bench import ceilings
from vtfast.bench.measure import Case, Outputs, Way
from vtfast.bench.results import JUDGED
from vtfast.bench.shapes import (
    MVIT_V1_B,
    MVIT_V2_S,
    SWIN3D_T,
    TIMESFORMER_BASE,
    UNIFORMER_S,
    UNIFORMER_V2_B16,
    ModelShape,
)
from vtfast.bench.subjects.subject import AUTOCAST, BOTH, FORWARD, MODEL, Subject, dtype_of
from vtfast.bench.upstreams import upstream_of
from vtfast.bench.upstreams.upstream import (
    Upstream,
    clip_of,
    forward_way,
    in_float64,
    linear_layers_way,
    on_reference,
    training_way,
)
from vtfast.models.registry import list_models, model_config

# Of logits, and in training also of every gradient; each a share of the largest value of its tensor.
TOLERANCES = {
    ("float32", FORWARD): 1e-4, ("bfloat16", FORWARD): 1e-1, ("float16", FORWARD): 2e-2, (AUTOCAST, FORWARD): 1e-1,
    ("float32", BOTH): 2e-3, ("bfloat16", BOTH): 2.5e-1, ("float16", BOTH): 1e-1, (AUTOCAST, BOTH): 2.5e-1,
}  # fmt: skip

# What `vtfast bench` measures unless it is told which, and at which size; the first two also in a quick run.
_SIZES = {
    shape.model: shape for shape in (SWIN3D_T, TIMESFORMER_BASE, MVIT_V2_S, MVIT_V1_B, UNIFORMER_S, UNIFORMER_V2_B16)
}
DEFAULT = tuple(_SIZES)

_WORKS = (("float32", FORWARD), ("bfloat16", FORWARD), (AUTOCAST, FORWARD), ("float32", BOTH))

REFERENCE = "reference"


@cache
def subject_of(name: str) -> Subject:
    """Any model of the registry, on a clip as published but for those that are measured by rule.

    Raises:
        ValueError: no model has this name.
    """
    published = model_config(name).preprocessing
    shape = _SIZES.get(name) or ModelShape(name, (1, 3, published.frames, published.crop, published.crop))
    upstream = upstream_of(name)
    peers: tuple[str, ...] = (REFERENCE,)
    if upstream is not None:
        peers = ("eager", "compile", *upstream.patched, *(f"{patch} compiled" for patch in upstream.compiled))
    small = min(64, published.crop)
    return Subject(
        name=name,
        kind=MODEL,
        sizes={" x ".join(map(str, shape.clip)): shape},
        quick=int(name in DEFAULT[:2]),
        peers=(*peers, f"{JUDGED} compiled"),
        cuda_peers=(*peers, f"{JUDGED} compiled"),
        make_case=case_of,
        small=ModelShape(name, (1, 3, min(8, published.frames), small, small)),
        works=_WORKS,
    )


def model_names() -> list[str]:
    """Every model, the most used first."""
    return [*DEFAULT, *(name for name in list_models() if name not in DEFAULT)]


def case_of(shape: ModelShape, dtype: str, mode: str, names: Sequence[str], device: str = "cpu") -> Case:
    """One row."""
    return Case(
        name=f"{shape.name}, {dtype}, {mode}",
        ways=partial(_ways, shape, dtype, mode, names, device),
        reference=partial(_reference, shape, mode, device),
        tolerance=TOLERANCES[dtype, mode],
    )


def _pair(shape: ModelShape) -> tuple[Upstream | None, nn.Module, nn.Module]:
    """The upstream, its model or vtfast's on the reference, and vtfast's with the same weights."""
    upstream = upstream_of(shape.model)
    if upstream is not None:
        theirs = upstream.make(shape)
        return upstream, theirs, upstream.ours(shape, theirs)
    torch.manual_seed(0)
    ours = vtfast.create_model(shape.model, **{"drop_path_rate": 0.0, **shape.config})
    return None, on_reference(ours), ours


def _in_mode(upstream: Upstream | None, model: nn.Module, training: bool) -> nn.Module:
    return model.train(training) if upstream is None else upstream.in_mode(model, training)


def _ways(shape: ModelShape, dtype: str, mode: str, names: Sequence[str], device: str) -> list[Way]:
    training, autocast = mode == BOTH, dtype == AUTOCAST
    upstream, theirs, ours = _pair(shape)
    # In evaluation mode, or batch normalisation would learn from the clip.
    shown = ours if upstream is None or upstream.hides_linear_layers else theirs
    linears = linear_layers_way(shown.eval(), clip_of(shape), dtype_of(dtype), training, device)
    weights = torch.float32 if autocast else dtype_of(dtype)
    for model in (theirs, ours):
        _in_mode(upstream, model.to(device, weights), training)
    clip = clip_of(shape).to(device, weights)
    rename = dict if upstream is None else upstream.rename(ours)
    makers = _makers(upstream, theirs, ours)
    ways = []
    for name in names:
        model = makers[name]()
        if training:
            ways.append(training_way(name, model, clip, rename, autocast))
        else:
            ways.append(forward_way(name, model, clip, autocast))
    return [*ways, linears, ceilings.gemm(dtype_of(dtype), device=device)]


def _makers(upstream: Upstream | None, theirs: nn.Module, ours: nn.Module) -> dict[str, Callable[[], nn.Module]]:
    """By the name of the way, what makes its model."""

    def compiled(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        return lambda: torch.compile(make(), dynamic=False)  # type: ignore[return-value]

    plain: dict[str, Callable[[], nn.Module]] = {
        "eager": lambda: theirs,
        REFERENCE: lambda: theirs,
        JUDGED: lambda: ours,
    }
    if upstream is not None:
        plain |= {name: partial(patch, theirs) for name, patch in upstream.patched.items()}
    return plain | {"compile": compiled(plain["eager"])} | {f"{name} compiled": compiled(plain[name]) for name in plain}


def _reference(shape: ModelShape, mode: str, device: str) -> Outputs:
    """Of the upstream's model in float64, one clip at a time as far as that gives the same."""
    upstream, theirs, ours = _pair(shape)
    rename = dict if upstream is None else upstream.rename(ours)
    exact = _in_mode(upstream, in_float64(theirs).to(device), mode == BOTH)
    clip = clip_of(shape).to(device).double()
    if mode == BOTH:
        way = training_way("float64", exact, clip, rename)
        assert way.outputs is not None
        return way.outputs(way.run())
    with torch.no_grad():
        return (torch.cat([exact(part) for part in clip.split(1)]),)
