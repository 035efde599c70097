"""UniFormerV2 weights of the authors' repository."""

from collections.abc import Mapping

from torch import Tensor, nn

from vtfast.checkpoints.renaming import Rule, rename
from vtfast.checkpoints.uniformer_v2_layout import RULES, converted

NAME = "official UniFormerV2"

_RULES: list[Rule] = [*RULES, (r"transformer\.proj\.0\.", "norm."), (r"transformer\.proj\.2\.", "head.")]


def recognises(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether there are CLIP's patch embedding and the global token, with or without `backbone.`."""
    names = {name.removeprefix("backbone.") for name in state_dict}
    return {"conv1.weight", "transformer.temporal_cls_token"} <= names


def convert(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Renames, and resizes positions."""
    return converted(rename(state_dict, [(r"backbone\.", "")]), _RULES, model)
