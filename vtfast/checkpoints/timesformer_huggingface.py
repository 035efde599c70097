"""TimeSformer weights of Hugging Face transformers, with or without its classifier."""

from collections.abc import Mapping

from torch import Tensor, nn

from vtfast.checkpoints.renaming import Rule, rename
from vtfast.checkpoints.timesformer_layout import block_rules, fit_sizes

NAME = "Hugging Face TimeSformer"

_RULES: list[Rule] = [
    (r"embeddings\.position_embeddings$", "pos_embed"),
    (r"embeddings\.time_embeddings$", "time_embed"),
    (r"embeddings\.cls_token$", "cls_token"),
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"layernorm\.", "norm."),
    (r"classifier\.", "head."),
]


def recognises(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether there are embeddings of patches and layers with a packed projection."""
    names = {name.removeprefix("timesformer.") for name in state_dict}
    return {"embeddings.cls_token", "encoder.layer.0.attention.attention.qkv.weight"} <= names


def convert(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Pure renames."""
    attention = {r"attention\.attention\.qkv\.": "attn.qkv.", r"attention\.output\.dense\.": "attn.proj."}
    rules = block_rules(
        r"encoder\.layer",
        model,
        time={
            r"temporal_layernorm\.": "norm.",
            r"temporal_dense\.": "fc.",
            **{rf"temporal_{name}": own for name, own in attention.items()},
        },
        frame={r"layernorm_before\.": "norm.", **attention},
        rest={r"layernorm_after\.": "norm.", r"intermediate\.dense\.": "mlp.fc1.", r"output\.dense\.": "mlp.fc2."},
    )
    return fit_sizes(rename(rename(state_dict, [(r"timesformer\.", "")]), _RULES + rules), model)
