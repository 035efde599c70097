"""What the upstreams of UniFormer share: where its names are told from others, and convolutions of single tokens."""

from collections.abc import Mapping

from torch import Tensor, nn


def is_uniformer(state_dict: Mapping[str, Tensor], dims: int) -> bool:
    """Whether the first stage has UniFormer's names, with or without `backbone.`, and its `conv1` so many axes."""
    names = {name.removeprefix("backbone."): name for name in state_dict}
    is_embedded = any(name.startswith("patch_embed1.proj.") for name in names)
    return (
        is_embedded and "blocks1.0.conv1.weight" in names and state_dict[names["blocks1.0.conv1.weight"]].dim() == dims
    )


def squeezed(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Without the axes of length one that `model` has not: convolutions as linear layers, layer scale as vectors."""
    own = model.state_dict()
    return {name: _squeeze(value, own[name]) if name in own else value for name, value in state_dict.items()}


def _squeeze(value: Tensor, own: Tensor) -> Tensor:
    """`value` as [O, I] or [C] if `own` is, and the lengths are the same; else as it was."""
    is_longer = own.dim() in (1, 2) and value.dim() > own.dim()
    same = [size for size in value.shape if size > 1] == [size for size in own.shape if size > 1]
    return value.reshape(own.shape) if is_longer and same else value
