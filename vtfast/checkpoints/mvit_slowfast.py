"""MViT weights of the authors' repository, SlowFast, with merged or separate projections."""

from collections.abc import Mapping

from torch import Tensor, nn

from vtfast.checkpoints.mvit_layout import NORM_RULES, converted, has_pooling_attention
from vtfast.checkpoints.renaming import Rule

NAME = "SlowFast MViT"

RULES: list[Rule] = [*NORM_RULES, (r"head\.projection\.", "head.")]


def recognises(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether there are blocks behind a patch embedding, and SlowFast's name of a head or pooling attention."""
    has_blocks = {"patch_embed.proj.weight", "blocks.0.attn.proj.weight"} <= state_dict.keys()
    return has_blocks and ("head.projection.weight" in state_dict or has_pooling_attention(state_dict))


def convert(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Renames, merges projections and resizes positions."""
    return converted(state_dict, RULES, model)
