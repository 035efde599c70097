"""What inflated image weights have in common."""

from collections.abc import Mapping

from torch import Tensor

from vtfast.checkpoints.head_rows import HEADS


def without_other_head(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`weights` without a head of other classes than those of `own`."""
    others = tuple(
        head for head in HEADS if (name := f"{head}weight") in weights and not _fits(weights[name], own.get(name))
    )
    return {name: value for name, value in weights.items() if not name.startswith(others)}


def _fits(value: Tensor, own: Tensor | None) -> bool:
    return own is not None and own.shape == value.shape
