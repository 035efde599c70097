"""State dicts that vtfast's own models saved."""

import re
from collections.abc import Mapping

from torch import Tensor, nn

from vtfast.checkpoints import mvit_layout, timesformer_layout, uniformer_layout, uniformer_v2_layout
from vtfast.checkpoints.renaming import rename

NAME = "vtfast"

_OWN_NAMES = re.compile(
    r"stages\.0\.blocks\.0\.|blocks\.0\.steps\.|blocks\.\d+\.attn\.pool_[qkv]\.norm\.|blocks\.0\.ln_1\."
)


def recognises(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a model or a `FeatureExtractor` of vtfast."""
    names = rename(state_dict, [(r"model\.", "")])
    # Without norms behind its poolings an MViT only differs from the authors' in its head.
    is_mvit = "head.weight" in names and mvit_layout.has_pooling_attention(names)
    return is_mvit or uniformer_layout.is_uniformer(names, dims=2) or any(_OWN_NAMES.match(name) for name in names)


def convert(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The same weights without the prefix of `FeatureExtractor`, positions of another size resized."""
    names = rename(state_dict, [(r"model\.", "")])
    for layout in (timesformer_layout, mvit_layout, uniformer_v2_layout):
        names = layout.fit_positions(names, model)
    return names
