"""2D Swin weights of images, inflated to 3D: the official repository's, timm's and torchvision's.

A patch weight is repeated over time and divided by the number of repeats, so that a still clip gives the image's
tokens; a bias table is resized to the window where it differs and repeated over the offsets in time.

Source: Liu et al., "Video Swin Transformer", 2022, section 3.3.
"""

import re
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from vtfast.checkpoints.inflation import without_other_head
from vtfast.checkpoints.renaming import Rule, rename
from vtfast.checkpoints.video_swin_torchvision import features_rules

NAME = "2D image Swin"

KEPT = re.compile(r"head\.")

_DROPPED: list[Rule] = [(r"(.*\.)?(relative_position_index|relative_coords_table|attn_mask)$", None)]


def recognises(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether there is a 2D patch embedding under one of the known names, and window attention behind it."""
    patches = (state_dict.get("patch_embed.proj.weight"), state_dict.get("features.0.0.weight"))
    has_table = any(name.endswith("attn.relative_position_bias_table") for name in state_dict)
    return has_table and any(patch is not None and patch.dim() == 4 for patch in patches)


def convert(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Renames, then inflates; `model` keeps its own head if its classes are others than the image model's."""
    own = model.state_dict()
    renamed = rename(state_dict, _DROPPED + _rules(state_dict))
    inflated = {name: _inflate(name, value, own, model) for name, value in renamed.items()}
    return without_other_head(inflated, own)


def _rules(state_dict: Mapping[str, Tensor]) -> list[Rule]:
    if "features.0.0.weight" in state_dict:
        patch: list[Rule] = [(r"features\.0\.0\.", "patch_embed.proj."), (r"features\.0\.2\.", "patch_embed.norm.")]
        return patch + features_rules(first_stage=1)
    # The official code merges at the end of a stage, timm at the beginning of the next one.
    merges_first = not any(name.startswith("layers.0.downsample.") for name in state_dict)
    return [
        (r"layers\.(\d+)\.blocks\.", r"stages.\1.blocks."),
        (r"layers\.(\d+)\.downsample\.", lambda match: f"stages.{int(match[1]) + (not merges_first)}.merging."),
        (r"head\.fc\.", "head."),
    ]


def _inflate(name: str, value: Tensor, own: Mapping[str, Tensor], model: nn.Module) -> Tensor:
    """The 3D form of one entry; entries that fit already, or nowhere, are returned as they are."""
    if name == "patch_embed.proj.weight" and name in own:
        frames = own[name].shape[2]
        return value.unsqueeze(2).expand(-1, -1, frames, -1, -1) / frames
    if name.endswith("relative_position_bias_table") and name in own:
        return _inflate_bias_table(value, model.window)  # type: ignore[arg-type]
    return value


def _inflate_bias_table(
    table: Tensor,  # [(2*side-1)**2, num_heads]
    window: tuple[int, int, int],
) -> Tensor:  # [(2*Wt-1)*(2*Wh-1)*(2*Ww-1), num_heads]
    side = round(table.shape[0] ** 0.5)
    offsets_t, offsets_h, offsets_w = (2 * size - 1 for size in window)
    if (side, side) != (offsets_h, offsets_w):
        image = table.t().reshape(1, -1, side, side).float()
        image = F.interpolate(image, size=(offsets_h, offsets_w), mode="bicubic", align_corners=False)
        table = image.flatten(2)[0].t()
    return table.repeat(offsets_t, 1)
