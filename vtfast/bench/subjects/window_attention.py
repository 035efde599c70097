"""The core of window attention, without linear layers, at the sizes of swin3d_t.

Everything between the qkv projection and the output projection. The peers' times include one roll and partition of a
tensor of C channels and the way back, the copies that a Swin block makes (k and v already lie in windows), and eager
also builds its shift mask in each call, as torchvision does. In the forward the 4-D tensor of bias and mask that SDPA
and FlexAttention take is prebuilt and not timed.
"""

from collections.abc import Sequence
from functools import partial

import torch

from vtfast.bench import ceilings
from vtfast.bench.measure import Case, Way
from vtfast.bench.peers.grid_attention import SDPA_BACKENDS, core_ways, reference_outputs
from vtfast.bench.shapes import SWIN3D_T_WINDOWS, WindowShape
from vtfast.bench.subjects.subject import FORWARD, OP, Subject, dtype_of

# Of output, d_qkv and d_table: rounding of scores to 16 bits (as every peer does) shows most in the table's gradient.
TOLERANCES = {
    torch.float32: (1e-5, 1e-4, 1e-4),
    torch.bfloat16: (2e-2, 5e-2, 5e-2),
    torch.float16: (4e-3, 1e-2, 1e-2),
}


def case_of(shape: WindowShape, dtype: str, mode: str, names: Sequence[str], device: str = "cpu") -> Case:
    """One row."""
    element, outputs = dtype_of(dtype), 1 if mode == FORWARD else 3 if shape.bias else 2
    return Case(
        name=f"{dtype}, {shape.name}",
        ways=partial(_ways, shape, element, mode, names, device),
        reference=partial(reference_outputs, shape, element, mode, device),
        tolerance=TOLERANCES[element][:outputs],
        flops=shape.product_flops * (2 if mode == FORWARD else 7),
        fewest_bytes=shape.fewest_bytes(element.itemsize, backward=mode != FORWARD),
    )


def _ways(shape: WindowShape, dtype: torch.dtype, mode: str, names: Sequence[str], device: str) -> list[Way]:
    start = "windows" if device == "cpu" else "packed"
    return [*core_ways(shape, dtype, mode, names, start, device), ceilings.gemm(dtype, device=device)]


SUBJECTS = (
    Subject(
        name="window_attention",
        kind=OP,
        sizes={shape.name: shape for shape in SWIN3D_T_WINDOWS},
        quick=2,
        peers=("eager", "SDPA", "FlexAttention", "compile"),
        cuda_peers=("eager", *SDPA_BACKENDS, "FlexAttention, bias compiled", "compile"),
        make_case=case_of,
        small=WindowShape("small", (8, 14, 14), 3, shift=(0, 3, 3)),
    ),
)
