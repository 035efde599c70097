"""MViT weights of PyTorchVideo: release 0.1.5 and the later repository, whose files hold every pooling twice.

The norms of release 0.1.5 behind its poolings have an epsilon of 1e-5. The authors, the later repository, which reads
the same files, and vtfast have 1e-6.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from vtfast.checkpoints.mvit_layout import NORM_RULES, converted
from vtfast.checkpoints.renaming import Rule, rename

NAME = "PyTorchVideo MViT"

RULES: list[Rule] = [
    # Files that keep one of two equal tensors may keep either.
    (r"(blocks\.\d+\.attn)\._attention_pool_([qkv])\.pool\.", r"\1.pool_\2."),
    (r"(blocks\.\d+\.attn)\._attention_pool_([qkv])\.norm\.", r"\1.pool_\2.norm."),
    *NORM_RULES,
    (r"patch_embed\.patch_model\.", "patch_embed.proj."),
    (r"cls_positional_encoding\.", ""),
    (r"norm_embed\.", "norm."),
    (r"head\.proj\.", "head."),
]


def recognises(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether there are its patch embedding and its positions, also inside the `model` of SlowFast's wrapper."""
    names = {name.removeprefix("model.") for name in state_dict}
    has_positions = any(name.startswith("cls_positional_encoding.") for name in names)
    return has_positions and {"patch_embed.patch_model.weight", "blocks.0.attn.proj.weight"} <= names


def convert(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Renames, merges projections and resizes positions."""
    return converted(rename(state_dict, [(r"model\.", "")]), RULES, model)
