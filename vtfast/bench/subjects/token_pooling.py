"""The pooling of MViT's blocks alone: that of q, k and v with its norms, and that of the skip path."""

from collections.abc import Iterator
from functools import partial
from math import prod

import torch

from benchmarks import ceilings
from benchmarks.measure import Case, Way
from benchmarks.peers import MODES
from benchmarks.pooling_peers import POOLING, SKIP, pooling_ways, reference_outputs, tolerance
from benchmarks.report import Section, timing_section
from benchmarks.scope import Scope
from benchmarks.shapes import MVIT_V1_B_BLOCKS, MVIT_V2_S_BLOCKS, PoolingShape, Triple
from benchmarks.suites.pooling_attention import DTYPES

_QKV = (
    "Depthwise convolution of 3 x 3 x 3 and LayerNorm of q, k and v, from packed qkv of one clip of 16 x 224 x 224, "
    "cls included, heads of 96. Peers leave the results by heads, where their attention wants them. `copy` moves as "
    "many bytes as are read and written at least"
)
_SKIP = "Max pooling of 1 x 3 x 3 with stride (1, 2, 2) of all channels of the tokens, on the path around the attention"


def run(scope: Scope) -> list[Section]:
    """Forward, and forward + backward, of either pooling."""
    sections = []
    for work, title, notes in ((POOLING, "Pooling of q, k, v", _QKV), (SKIP, "Pooling of the skip path", _SKIP)):
        for mode in MODES:
            sections.append(
                timing_section(f"{title}, {mode}", f"{notes}.", cases(scope, work, mode), scope.core_effort)
            )
    return sections


def cases(scope: Scope, work: str, mode: str) -> Iterator[Case]:
    """A case for each dtype and block that pools."""
    for dtype in DTYPES:
        for shape in shapes_of(scope, work):
            yield case_of(shape, work, dtype, mode, compiled=scope.compile and shape.name.endswith("block 1"))


def shapes_of(scope: Scope, work: str) -> list[PoolingShape]:
    """The blocks; around the attention only those that pool queries with a stride do."""
    shapes = MVIT_V2_S_BLOCKS[:2] if scope.quick else (*MVIT_V2_S_BLOCKS, *MVIT_V1_B_BLOCKS[:1])
    return [shape for shape in shapes if work == POOLING or shape.q_grid != shape.grid]


def case_of(shape: PoolingShape, work: str, dtype: torch.dtype, mode: str, compiled: bool = False) -> Case:
    """One row."""
    short = str(dtype).removeprefix("torch.")
    return Case(
        name=f"{short}, {shape.name}",
        ways=partial(_ways, shape, work, dtype, mode, compiled),
        reference=partial(reference_outputs, shape, work, dtype, mode),
        tolerance=tolerance(shape, work, dtype, mode),
        facts={"block": shape.name, "work": work, "dtype": short, "mode": mode},
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
    rows = covered + results if mode == "forward" else 2 * covered + tokens + 2 * results
    return shape.batch * rows * shape.channels * dtype.itemsize


def num_covered(grid: Triple, stride: Triple) -> int:
    """Tokens that lie in a window of three along every axis."""
    return prod(
        len({token for window in range(0, size, step) for token in range(max(0, window - 1), min(size, window + 2))})
        for size, step in zip(grid, stride, strict=True)
    )


def _ways(shape: PoolingShape, work: str, dtype: torch.dtype, mode: str, compiled: bool) -> list[Way]:
    names = ["eager", *["compile"] * compiled, "vtfast"]
    # A copy reads and writes each of its bytes.
    copy = ceilings.copy(size=fewest_bytes(shape, work, dtype, mode) // 2)
    return [*pooling_ways(shape, work, dtype, mode, names), copy]
