"""The attention of MViT's blocks without their linear layers: pooling, norms, attention, residual pooling."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks import ceilings
from benchmarks.measure import Case, Way
from benchmarks.peers import MODES
from benchmarks.pooling_peers import ATTENTION, pooling_ways, reference_outputs, tolerance
from benchmarks.report import Section, timing_section
from benchmarks.scope import Scope
from benchmarks.shapes import MVIT_V1_B_BLOCKS, MVIT_V2_S_BLOCKS, PoolingShape

DTYPES = (torch.float32, torch.bfloat16)

_INCLUDED = (
    "From packed qkv to the input of the output projection, one clip of 16 x 224 x 224, cls included, heads of 96: "
    "depthwise convolution and LayerNorm of q, k and v, attention, and in MViTv2 relative positions along t, h and w "
    "and residual pooling. SDPA takes the relative positions as a tensor of the scores' size. The rate counts "
    "attention's matrix products alone"
)


def run(scope: Scope) -> list[Section]:
    """Forward, and forward + backward."""
    forward, both = MODES
    without_amx = None
    if ceilings.has_amx():
        without_amx = ceilings.rates_without_amx(scope.core_effort, scope.threads)["GEMM bfloat16"]
    section = partial(timing_section, effort=scope.core_effort, gemm_without_amx=without_amx)
    gradients = f"{_INCLUDED}. Gradients of qkv and of every parameter."
    return [
        section("Pooling attention, forward", f"{_INCLUDED}.", cases(scope, forward)),
        section("Pooling attention, forward + backward", gradients, cases(scope, both)),
    ]


def cases(scope: Scope, mode: str) -> Iterator[Case]:
    """A case for each dtype and block."""
    for dtype in DTYPES:
        for shape in MVIT_V2_S_BLOCKS[:2] if scope.quick else (*MVIT_V2_S_BLOCKS, *MVIT_V1_B_BLOCKS):
            compiled = scope.compile and shape.name.endswith(("block 0", "block 1"))
            yield case_of(shape, dtype, mode, compiled)


def case_of(shape: PoolingShape, dtype: torch.dtype, mode: str, compiled: bool = False) -> Case:
    """One row."""
    short = str(dtype).removeprefix("torch.")
    return Case(
        name=f"{short}, {shape.name}",
        ways=partial(_ways, shape, dtype, mode, compiled),
        reference=partial(reference_outputs, shape, ATTENTION, dtype, mode),
        tolerance=tolerance(shape, ATTENTION, dtype, mode),
        flops=shape.product_flops * (2 if mode == "forward" else 7),
        facts={"block": shape.name, "dtype": short, "mode": mode},
    )


def _ways(shape: PoolingShape, dtype: torch.dtype, mode: str, compiled: bool) -> list[Way]:
    names = ["eager", *["compile"] * compiled, "SDPA", "vtfast"]
    return [*pooling_ways(shape, ATTENTION, dtype, mode, names), ceilings.gemm(dtype)]
