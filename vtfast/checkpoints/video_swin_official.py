"""Video Swin weights of the official repository and of mmaction2, which share all names but two."""

from collections.abc import Mapping

from torch import Tensor, nn

from vtfast.checkpoints.renaming import Rule, rename

NAME = "official Video Swin or mmaction2"

_RULES: list[Rule] = [
    (r"cls_head\.fc_cls\.", "head."),
    (r"layers\.(\d+)\.blocks\.(\d+)\.attn\.relative_position_index$", None),
    (r"layers\.(\d+)\.blocks\.", r"stages.\1.blocks."),
    (r"layers\.(\d+)\.downsample\.", lambda match: f"stages.{int(match[1]) + 1}.merging."),
    (r"norm3\.", "norm."),
]


def recognises(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether blocks are numbered inside `layers` and the patch embedding is 3D, with or without `backbone.`."""
    names = {name.removeprefix("backbone."): value for name, value in state_dict.items()}
    patch = names.get("patch_embed.proj.weight")
    return "layers.0.blocks.0.attn.qkv.weight" in names and patch is not None and patch.dim() == 5


def convert(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A merging stands at the end of a stage there; `norm3` is mmaction2's name of the final norm."""
    return rename(rename(state_dict, [(r"backbone\.", "")]), _RULES)
