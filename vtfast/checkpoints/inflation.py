"""What inflated image weights have in common."""

from collections.abc import Mapping

from torch import Tensor


def with_own_head(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`weights`, but with the head of `own` where theirs is missing or has other classes."""
    head = weights.get("head.weight")
    if head is not None and "head.weight" in own and own["head.weight"].shape == head.shape:
        return dict(weights)
    body = {name: value for name, value in weights.items() if not name.startswith("head.")}
    return body | {name: value for name, value in own.items() if name.startswith("head.")}
