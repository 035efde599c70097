"""2D ViT weights of images under timm's names, inflated to TimeSformer as the authors did.

Every attention of a block starts as the image's. The linear layers behind all but the last, and the embeddings of time,
have no counterpart in an image: the model keeps its own, which are zero in a new one.

Source: Bertasius et al., "Is Space-Time Attention All You Need for Video Understanding?", 2021, and the authors' code.
"""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from vtfast.checkpoints.inflation import without_other_head
from vtfast.checkpoints.renaming import Rule, rename
from vtfast.checkpoints.timesformer_layout import fit_sizes

NAME = "2D image ViT"

KEPT = re.compile(r"time_embed$|blocks\.\d+\.steps\.\w+\.fc\.|head\.")

_RULES: list[Rule] = [(r"pre_logits\.", None), (r"blocks\.(\d+)\.norm2\.", r"blocks.\1.norm.")]


def recognises(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether there are a 2D patch embedding, cls, positions of places only, and attention in blocks."""
    patch = state_dict.get("patch_embed.proj.weight")
    has_blocks = "cls_token" in state_dict and "blocks.0.attn.qkv.weight" in state_dict
    return has_blocks and "pos_embed" in state_dict and patch is not None and patch.dim() == 4


def convert(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Renames and copies; `model` keeps its own head if its classes are others than the image model's."""
    inflated = _copied_to_steps(rename(state_dict, _RULES), getattr(model, "schemes", ()))
    return fit_sizes(without_other_head(inflated, model.state_dict()), model)


def _copied_to_steps(state_dict: Mapping[str, Tensor], schemes: Sequence[str]) -> dict[str, Tensor]:
    """Norm and attention of a block once for each of its steps; all as it is for a model without steps."""
    copied: dict[str, Tensor] = {}
    for name, value in state_dict.items():
        match = re.match(r"(blocks\.\d+\.)(norm1|attn)\.", name)
        if match and schemes:
            rest = ("norm." if match[2] == "norm1" else "attn.") + name[match.end() :]
            copied |= {f"{match[1]}steps.over_{scheme}.{rest}": value for scheme in schemes}
        else:
            copied[name] = value
    return copied
