"""Rotary embedding of packed q and k at the sizes of timesformer_lucidrains, by frame and by place in it."""

from collections.abc import Sequence
from functools import partial

import torch

from vtfast.bench import ceilings
from vtfast.bench.measure import Case, Way
from vtfast.bench.peers.rotary import TOLERANCES, reference_outputs, rotary_ways
from vtfast.bench.shapes import RotaryShape
from vtfast.bench.subjects.subject import FORWARD, OP, Subject, dtype_of


def case_of(shape: RotaryShape, dtype: str, mode: str, names: Sequence[str], device: str = "cpu") -> Case:
    """One row."""
    element = dtype_of(dtype)
    return Case(
        name=f"{dtype}, {' x '.join(map(str, shape.grid))} by {shape.axes}",
        ways=partial(_ways, shape, element, mode, names, device),
        reference=partial(reference_outputs, shape, element, mode, device),
        tolerance=TOLERANCES[element],
        fewest_bytes=shape.fewest_bytes(element.itemsize, backward=mode != FORWARD),
    )


def _ways(shape: RotaryShape, dtype: torch.dtype, mode: str, names: Sequence[str], device: str) -> list[Way]:
    copied = shape.fewest_bytes(dtype.itemsize, backward=mode != FORWARD)
    return [*rotary_ways(shape, dtype, mode, names, device), ceilings.copy(size=copied // 2, device=device)]


SUBJECTS = (
    Subject(
        name="rotary_embedding",
        kind=OP,
        sizes={f"8 x 14 x 14 by {axes}": RotaryShape((8, 14, 14), axes=axes) for axes in ("time", "space")},
        quick=1,
        peers=("eager", "compile"),
        cuda_peers=("eager", "compile"),
        make_case=case_of,
        small=RotaryShape((2, 4, 4)),
    ),
)
