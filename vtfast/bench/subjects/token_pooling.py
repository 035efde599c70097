"""The pooling of MViT's blocks alone: that of q, k and v with its norms, and that of the skip path.

Of q, k and v: depthwise convolution of 3 x 3 x 3 and LayerNorm, from packed qkv, cls included; peers leave the results
by heads, where their attention wants them. Of the skip path: max pooling of 1 x 3 x 3 of all channels of the tokens.
"""

from collections.abc import Sequence
from functools import partial
from math import prod

import torch

from vtfast.bench import ceilings
from vtfast.bench.measure import Case, Way
from vtfast.bench.peers.pooling import POOLING, SKIP, pooling_ways, reference_outputs, tolerance
from vtfast.bench.shapes import MVIT_V1_B_BLOCKS, MVIT_V2_S_BLOCKS, PoolingShape, Triple
from vtfast.bench.subjects.subject import FORWARD, OP, Subject, dtype_of

_SHAPES = (*MVIT_V2_S_BLOCKS, *MVIT_V1_B_BLOCKS[:1])


def case_of(work: str, shape: PoolingShape, dtype: str, mode: str, names: Sequence[str], device: str = "cpu") -> Case:
    """One row."""
    element = dtype_of(dtype)
    return Case(
        name=f"{dtype}, {shape.name}",
        ways=partial(_ways, shape, work, element, mode, names, device),
        reference=partial(reference_outputs, shape, work, element, mode, device),
        tolerance=tolerance(shape, work, element, mode),
        fewest_bytes=fewest_bytes(shape, work, element, mode),
    )


def fewest_bytes(shape: PoolingShape, work: str, dtype: torch.dtype, mode: str) -> int:
    """Forward: reads what lies in a window, writes the results. Backward: reads both's like, writes the gradient."""
    before, after, keys = (1 + prod(grid) for grid in (shape.grid, shape.q_grid, shape.k_grid))
    queries = 1 + num_covered(shape.grid, shape.q_stride or (1, 1, 1))
    covered_keys = 1 + num_covered(shape.grid, shape.kv_stride)
    if work == POOLING:
        covered, tokens, results = queries + 2 * covered_keys, 3 * before, after + 2 * keys
    else:
        covered, tokens, results = queries, before, after
    rows = covered + results if mode == FORWARD else 2 * covered + tokens + 2 * results
    return shape.batch * rows * shape.channels * dtype.itemsize


def num_covered(grid: Triple, stride: Triple) -> int:
    """Tokens that lie in a window of three along every axis."""
    return prod(
        len({token for window in range(0, size, step) for token in range(max(0, window - 1), min(size, window + 2))})
        for size, step in zip(grid, stride, strict=True)
    )


def _ways(
    shape: PoolingShape, work: str, dtype: torch.dtype, mode: str, names: Sequence[str], device: str
) -> list[Way]:
    # A copy reads and writes each of its bytes.
    copy = ceilings.copy(size=fewest_bytes(shape, work, dtype, mode) // 2, device=device)
    return [*pooling_ways(shape, work, dtype, mode, names, device), copy]


def _subject(name: str, work: str, shapes: Sequence[PoolingShape], quick: int) -> Subject:
    return Subject(
        name=name,
        kind=OP,
        sizes={shape.name: shape for shape in shapes},
        quick=quick,
        peers=("eager", "compile"),
        cuda_peers=("eager", "compile"),
        make_case=partial(case_of, work),
        small=PoolingShape("small", (2, 4, 4), 1, (1, 2, 2), (1, 2, 2)),
    )


SUBJECTS = (
    _subject("pool_qkv", POOLING, _SHAPES, 2),
    # Only blocks that pool queries with a stride pool around the attention.
    _subject("pool_tokens", SKIP, [shape for shape in _SHAPES if shape.q_grid != shape.grid], 1),
)
