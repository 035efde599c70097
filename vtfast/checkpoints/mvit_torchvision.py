"""MViT weights of torchvision: `mvit_v1_b`, `mvit_v2_s`."""

from collections.abc import Mapping

from torch import Tensor, nn

from vtfast.checkpoints.mvit_layout import converted
from vtfast.checkpoints.renaming import Rule

NAME = "torchvision MViT"

_BLOCK = r"(blocks\.\d+\.)"
_RULES: list[Rule] = [
    (r"conv_proj\.", "patch_embed.proj."),
    (r"pos_encoding\.class_token$", "cls_token"),
    (r"pos_encoding\.class_pos$", "pos_embed_class"),
    (r"pos_encoding\.(spatial|temporal)_pos$", r"pos_embed_\1"),
    (_BLOCK + r"attn\.pool_([qkv])\.pool\.", r"\1attn.pool_\2."),
    (_BLOCK + r"attn\.pool_([qkv])\.norm_act\.0\.", r"\1attn.pool_\2.norm."),
    (_BLOCK + r"attn\.project\.0\.", r"\1attn.proj."),
    (_BLOCK + r"mlp\.0\.", r"\1mlp.fc1."),
    (_BLOCK + r"mlp\.3\.", r"\1mlp.fc2."),
    (_BLOCK + r"project\.", r"\1proj."),
    (r"head\.1\.", "head."),
]


def recognises(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether there are its patch embedding and its class token."""
    return {"conv_proj.weight", "pos_encoding.class_token", "blocks.0.attn.project.0.weight"} <= state_dict.keys()


def convert(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Renames, gives positions their leading axes, and resizes them."""
    batched = {
        # The class token and its position are vectors there, the other positions have one axis beside the channels.
        name: value[(None,) * (3 - value.dim())] if name.startswith("pos_encoding.") else value
        for name, value in state_dict.items()
    }
    return converted(batched, _RULES, model)
