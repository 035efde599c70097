"""Depthwise 3D convolution with the kernels and sizes of UniFormer and UniFormerV2, of volumes and of tokens.

With bias, stride 1 and half the kernel of padding; volumes and gradients lie in the layout of the way, vtfast's in
channels_last_3d. Of tokens it is x + conv(x): NCDHW copies them to a volume and back, channels_last_3d takes them as a
view. The rate counts multiplications and additions of all taps within the grid, and its GEMM is that of float32, whose
units a convolution in any dtype sums with.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from vtfast.bench import ceilings
from vtfast.bench.measure import Case, Way
from vtfast.bench.peers.depthwise import NAMES, TOKENS, VOLUME, depthwise_ways, reference_outputs, tolerance
from vtfast.bench.shapes import (
    UNIFORMER_CONVOLUTIONS,
    UNIFORMER_V2_POSITION,
    UNIFORMER_V2_TIME,
    ConvolutionShape,
)
from vtfast.bench.subjects.subject import FORWARD, OP, Subject, dtype_of

_LAYOUTS = NAMES[:-1]


def case_of(shape: ConvolutionShape, dtype: str, mode: str, names: Sequence[str], device: str = "cpu") -> Case:
    """One row. The compiler has something to join only around the convolution of tokens."""
    element, work = dtype_of(dtype), TOKENS if shape.residual else VOLUME
    names = [name for name in names if shape.residual or "compiled" not in name]
    return Case(
        name=f"{dtype}, {shape.name}",
        ways=partial(_ways, shape, work, element, mode, names, device),
        reference=partial(reference_outputs, shape, work, element, mode, device),
        tolerance=tolerance(element, mode),
        flops=shape.flops * (1 if mode == FORWARD else 3),
        fewest_bytes=shape.fewest_bytes(element.itemsize, backward=mode != FORWARD),
    )


def _ways(
    shape: ConvolutionShape, work: str, dtype: torch.dtype, mode: str, names: Sequence[str], device: str
) -> list[Way]:
    copied = shape.fewest_bytes(dtype.itemsize, backward=mode != FORWARD)
    return [
        *depthwise_ways(shape, work, dtype, mode, names, device),
        ceilings.copy(size=copied // 2, device=device),  # each byte is read and written
        ceilings.gemm(torch.float32, size=1024, device=device),
    ]


def _sizes() -> dict[str, ConvolutionShape]:
    """Volumes, the two largest first; of tokens the position embeddings."""
    first, fifth = UNIFORMER_CONVOLUTIONS[0], UNIFORMER_CONVOLUTIONS[4]
    others = (shape for shape in UNIFORMER_CONVOLUTIONS if shape not in (first, fifth))
    embeddings = (*UNIFORMER_CONVOLUTIONS[:4], UNIFORMER_V2_POSITION)
    tokens = (replace(shape, name=f"{shape.name}, added to tokens", residual=True) for shape in embeddings)
    return {shape.name: shape for shape in (first, fifth, *others, UNIFORMER_V2_TIME, *tokens)}


SUBJECTS = (
    Subject(
        name="depthwise_conv3d",
        kind=OP,
        sizes=_sizes(),
        quick=2,
        peers=(*_LAYOUTS, *(f"{name} compiled" for name in _LAYOUTS)),
        cuda_peers=(*_LAYOUTS, *(f"{name} compiled" for name in _LAYOUTS)),
        make_case=case_of,
        small=ConvolutionShape("small", (2, 4, 4), 16),
        sums="float32",
    ),
)
