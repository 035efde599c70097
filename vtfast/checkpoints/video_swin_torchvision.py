"""Video Swin weights of torchvision: `swin3d_t`, `swin3d_s`, `swin3d_b`."""

import re
from collections.abc import Mapping

from torch import Tensor, nn

from vtfast.checkpoints.renaming import Rule, rename

NAME = "torchvision swin3d"


def recognises(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether blocks are numbered inside `features` and the patch embedding is 3D."""
    return "features.0.0.attn.qkv.weight" in state_dict and "patch_embed.proj.weight" in state_dict


def convert(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Stages are the even entries of `features`, the merging before stage S is entry 2 S - 1."""
    return rename(state_dict, features_rules(first_stage=0))


def features_rules(first_stage: int) -> list[Rule]:
    """The rules for torchvision's `features`, in which stage 0 is entry `first_stage` and mergings alternate."""

    def block(match: re.Match[str]) -> str:
        layer = {"mlp.0.": "mlp.fc1.", "mlp.3.": "mlp.fc2."}.get(match[3], match[3])
        return f"stages.{(int(match[1]) - first_stage) // 2}.blocks.{match[2]}.{layer}"

    def merging(match: re.Match[str]) -> str:
        return f"stages.{(int(match[1]) - first_stage + 1) // 2}.merging.{match[2]}."

    return [
        (r"features\.\d+\.\d+\.attn\.relative_position_index$", None),
        (r"features\.(\d+)\.(\d+)\.(norm[12]\.|attn\.|mlp\.[03]\.)", block),
        (r"features\.(\d+)\.(norm|reduction)\.", merging),
    ]
