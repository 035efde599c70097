"""UniFormerV2 weights of mmaction2; those of Kinetics have their classes in the order of its own lists."""

from collections.abc import Mapping

from torch import Tensor, nn

from vtfast.checkpoints import uniformer_v2_official
from vtfast.checkpoints.renaming import Rule, rename
from vtfast.checkpoints.uniformer_v2_layout import RULES, converted

NAME = "mmaction2 UniFormerV2"

_RULES: list[Rule] = [*RULES, (r"transformer\.norm\.", "norm."), (r"cls_head\.fc_cls\.", "head.")]


def recognises(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the names are the authors', and the final norm stands beside the head, with or without `backbone.`."""
    has_norm = any(name.removeprefix("backbone.") == "transformer.norm.weight" for name in state_dict)
    return has_norm and uniformer_v2_official.recognises(state_dict)


def convert(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Renames, and resizes positions."""
    return converted(rename(state_dict, [(r"backbone\.", "")]), _RULES, model)
