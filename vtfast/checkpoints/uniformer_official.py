"""UniFormer weights of the authors' repository, whose names are vtfast's: the plain, the split and the light models."""

from collections.abc import Mapping

from torch import Tensor, nn

from vtfast.checkpoints.renaming import rename
from vtfast.checkpoints.uniformer_layout import is_uniformer, squeezed

NAME = "official UniFormer"


def recognises(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether there are 1x1x1 convolutions in its first stage, with or without `backbone.`."""
    return is_uniformer(state_dict, dims=5)


def convert(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The same names; convolutions of single tokens as linear layers."""
    return squeezed(rename(state_dict, [(r"backbone\.", "")]), model)
