"""State dicts that vtfast's own models saved."""

from collections.abc import Mapping

from torch import Tensor, nn

from vtfast.checkpoints.renaming import rename
from vtfast.checkpoints.timesformer_layout import fit_positions

NAME = "vtfast"


def recognises(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a model or a `FeatureExtractor` of vtfast."""
    beginnings = ("stages.0.blocks.0.", "blocks.0.steps.")
    return any(name.removeprefix("model.").startswith(beginnings) for name in state_dict)


def convert(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The same weights without the prefix of `FeatureExtractor`, positions of another size resized."""
    return fit_positions(rename(state_dict, [(r"model\.", "")]), model)
