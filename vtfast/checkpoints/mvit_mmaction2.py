"""MViT weights of mmaction2.

Its model behind masked feature prediction classifies by cls, the authors' by the mean over the tokens: `global_pool` of
a MaskFeat model of vtfast must be "token" for it. The names cannot tell.
"""

import re
from collections.abc import Mapping

from torch import Tensor, nn

from vtfast.checkpoints.mvit_layout import NORM_RULES, converted, has_pooling_attention
from vtfast.checkpoints.renaming import Rule, rename

NAME = "mmaction2 MViT"


def recognises(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether there is pooling attention behind its patch embedding, with or without `backbone.`."""
    names = {name.removeprefix("backbone.") for name in state_dict}
    has_blocks = {"patch_embed.projection.weight", "blocks.0.attn.proj.weight"} <= names
    return has_blocks and has_pooling_attention(names)


def convert(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The final norm carries the number of its stage; a class token is in files of models without one, too."""
    names = rename(state_dict, [(r"backbone\.", "")])
    rules: list[Rule] = [
        *NORM_RULES,
        (r"patch_embed\.projection\.", "patch_embed.proj."),
        (r"cls_head\.fc_cls\.", "head."),
    ]
    stages = [int(match[1]) for name in names if (match := re.match(r"norm(\d+)\.", name))]
    if stages:
        rules.append((rf"norm{max(stages)}\.", "norm."))
    if "cls_token" not in model.state_dict():
        rules.append((r"cls_token$", None))
    return converted(names, rules, model)
