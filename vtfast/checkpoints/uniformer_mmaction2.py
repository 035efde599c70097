"""UniFormer weights of mmaction2; those of Kinetics have their classes in the order of its own lists.

The norms of its blocks with attention have an epsilon of 1e-5; those of the authors, whose weights they are, and of
vtfast 1e-6.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from vtfast.checkpoints.renaming import rename
from vtfast.checkpoints.uniformer_layout import is_uniformer, squeezed

NAME = "mmaction2 UniFormer"


def recognises(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the names are the authors' inside a recogniser with its own head."""
    return "cls_head.fc_cls.weight" in state_dict and is_uniformer(state_dict, dims=5)


def convert(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Renames the head; convolutions of single tokens as linear layers."""
    return squeezed(rename(state_dict, [(r"backbone\.", ""), (r"cls_head\.fc_cls\.", "head.")]), model)
