"""The attention of MViT's blocks without their linear layers: pooling, norms, attention, residual pooling.

From packed qkv to the input of the output projection, cls included: depthwise convolution and LayerNorm of q, k and v,
attention, and in MViTv2 relative positions along t, h and w and residual pooling. SDPA takes the relative positions as
a tensor of the scores' size. The rate counts attention's matrix products alone.
"""

from collections.abc import Sequence
from functools import partial

import torch

from vtfast.bench import ceilings
from vtfast.bench.measure import Case, Way
from vtfast.bench.peers.pooling import ATTENTION, pooling_ways, reference_outputs, tolerance
from vtfast.bench.shapes import MVIT_V1_B_BLOCKS, MVIT_V2_S_BLOCKS, PoolingShape
from vtfast.bench.subjects.subject import FORWARD, OP, Subject, dtype_of


def case_of(shape: PoolingShape, dtype: str, mode: str, names: Sequence[str], device: str = "cpu") -> Case:
    """One row."""
    element = dtype_of(dtype)
    return Case(
        name=f"{dtype}, {shape.name}",
        ways=partial(_ways, shape, element, mode, names, device),
        reference=partial(reference_outputs, shape, ATTENTION, element, mode, device),
        tolerance=tolerance(shape, ATTENTION, element, mode),
        flops=shape.product_flops * (2 if mode == FORWARD else 7),
    )


def _ways(shape: PoolingShape, dtype: torch.dtype, mode: str, names: Sequence[str], device: str) -> list[Way]:
    return [*pooling_ways(shape, ATTENTION, dtype, mode, names, device), ceilings.gemm(dtype, device=device)]


SUBJECTS = (
    Subject(
        name="pooling_attention",
        kind=OP,
        sizes={shape.name: shape for shape in (*MVIT_V2_S_BLOCKS, *MVIT_V1_B_BLOCKS)},
        quick=2,
        peers=("eager", "SDPA", "compile"),
        cuda_peers=("eager", "SDPA efficient", "SDPA math", "compile"),
        make_case=case_of,
        small=PoolingShape("small", (2, 4, 4), 1, (1, 1, 1), (1, 2, 2)),
    ),
)
