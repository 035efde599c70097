"""Weights of CLIP's image tower, a ViT, inflated to UniFormerV2 as published.

The patch embedding becomes the frame in the middle of its kernel, zero before and behind it, so that a clip starts as
its frames. The last norm and the projection to the words of CLIP are dropped. What an image has no counterpart for, the
local and global blocks, norm and head, the model keeps as its own. OpenAI's names, also behind `visual.` and beside the
tower of text, as OpenCLIP has them too, and those of Hugging Face.

Only weights trained with the activation of OpenAI's models mean anything here, x * sigmoid(1.702 x); names and shapes
cannot tell.

Source: the initialisation from CLIP in the authors' code.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vtfast.checkpoints.renaming import Rule
from vtfast.checkpoints.uniformer_v2_layout import CLIP_RULES, converted

NAME = "CLIP's image tower"

KEPT = re.compile(r"blocks\.\d+\.lmhra[12]\.|global_blocks\.|temporal_cls_token$|balance$|fuse_tokens\.|norm\.|head\.")

_DROPPED: list[Rule] = [(r"proj$|ln_post\.", None)]
_HUGGINGFACE_LAYER = r"encoder\.layers\.(\d+)\."
_HUGGINGFACE_RULES: list[Rule] = [
    (r"embeddings\.class_embedding$", "class_embedding"),
    (r"embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"pre_layrnorm\.", "ln_pre."),  # sic
    (_HUGGINGFACE_LAYER + r"self_attn\.qkv\.", r"blocks.\1.attn.qkv."),
    (_HUGGINGFACE_LAYER + r"self_attn\.out_proj\.", r"blocks.\1.attn.proj."),
    (_HUGGINGFACE_LAYER + r"layer_norm([12])\.", r"blocks.\1.ln_\2."),
    (_HUGGINGFACE_LAYER + r"mlp\.", r"blocks.\1.mlp."),
    (r"embeddings\.position_ids$|post_layernorm\.", None),
]


def recognises(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether there is a tower of images with a class embedding, alone or beside one of text."""
    openai = _tower(state_dict, "visual.").keys()
    huggingface = _tower(state_dict, "vision_model.").keys()
    is_openai = {"class_embedding", "conv1.weight", "transformer.resblocks.0.attn.in_proj_weight"} <= openai
    return is_openai or {"embeddings.class_embedding", "encoder.layers.0.self_attn.q_proj.weight"} <= huggingface


def convert(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Renames, merges projections, inflates and resizes positions."""
    tower = _tower(state_dict, "visual.")
    if "class_embedding" in tower:
        image = converted(tower, _DROPPED + CLIP_RULES, model)
    else:
        image = converted(_merged_projections(_tower(state_dict, "vision_model.")), _HUGGINGFACE_RULES, model)
    name = "patch_embed.proj.weight"
    if name in image:
        image[name] = _in_the_middle(image[name], model.state_dict().get(name))
    return image


def _tower(state_dict: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries behind `prefix`, or all if there are none."""
    inner = {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
    return inner or dict(state_dict)


def _merged_projections(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    merged = dict(state_dict)
    for name in state_dict:
        parts = [name.replace(".q_proj.", f".{part}_proj.") for part in "qkv"]
        if ".q_proj." in name and all(part in merged for part in parts):
            merged[name.replace(".q_proj.", ".qkv.")] = torch.cat([merged.pop(part) for part in parts])
    return merged


def _in_the_middle(
    value: Tensor,  # [C, 3, p, p]
    own: Tensor | None,  # [C, 3, kt, p, p]
) -> Tensor:  # [C, 3, kt, p, p], or as it was
    if own is None or own.dim() != 5 or value.dim() != 4:
        return value
    frames = own.shape[2]
    inflated = value.new_zeros(*value.shape[:2], frames, *value.shape[2:])
    inflated[:, :, frames // 2] = value
    return inflated
