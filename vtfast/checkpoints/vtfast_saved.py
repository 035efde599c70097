"""State dicts that vtfast's own models saved."""

from collections.abc import Mapping

from torch import Tensor, nn

from vtfast.checkpoints.renaming import rename

NAME = "vtfast"


def recognises(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a model or a `FeatureExtractor` of vtfast."""
    return any(name.removeprefix("model.").startswith("stages.0.blocks.0.") for name in state_dict)


def convert(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The same weights without the prefix of `FeatureExtractor`."""
    return rename(state_dict, [(r"model\.", "")])
