"""mvit_v2_s and mvit_v1_b as a whole: torchvision's against vtfast's with the same weights."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import ceilings
from benchmarks.measure import Case, Way
from benchmarks.model_cases import AUTOCAST, NOTES, PURE_BFLOAT16, TRAINING, model_cases
from benchmarks.mvit_upstream import TORCHVISION_MVIT
from benchmarks.report import Section, timing_section
from benchmarks.scope import Scope
from benchmarks.shapes import MVIT_V1_B, MVIT_V2_S, ModelShape

QUICK = False

_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")

_RATE = (
    "The rate counts the matrix products of torchvision's model, those of linear layers, scores, relative positions "
    "and values, and no convolution"
)


def run(scope: Scope) -> list[Section]:
    """Inference in three precisions and a training step of each."""
    notes = f"Of {TORCHVISION_MVIT.name}. {NOTES} {_RATE}."
    return [
        timing_section(f"Model {shape.name}", notes, cases(scope, shape), scope.model_effort)
        for shape in (MVIT_V2_S, MVIT_V1_B)
    ]


def cases(scope: Scope, shape: ModelShape) -> Iterator[Case]:
    """Those of any model, with the rate of matrix products against a GEMM's."""
    for case in model_cases(scope, shape, TORCHVISION_MVIT):
        dtype = torch.bfloat16 if case.name in (PURE_BFLOAT16, AUTOCAST) else torch.float32
        flops = product_flops(shape, training=case.name == TRAINING)
        yield replace(case, ways=partial(_with_gemm, case, dtype), flops=flops)


def product_flops(shape: ModelShape, training: bool) -> int:
    """Floating point operations of the matrix products of torchvision's model."""
    with torch.device("meta"):
        model, clip = TORCHVISION_MVIT.make(shape), torch.empty(shape.clip)
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(training):
        logits = model(clip)
        if training:
            logits.sum().backward()
    counts = counter.get_flop_counts()["Global"]
    return sum(flops for operator, flops in counts.items() if str(operator).removeprefix("aten.") in _PRODUCTS)


def _with_gemm(case: Case, dtype: torch.dtype) -> list[Way]:
    return [*case.ways(), ceilings.gemm(dtype)]
