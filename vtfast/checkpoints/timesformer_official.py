"""TimeSformer weights of the authors' repository."""

from collections.abc import Mapping

from torch import Tensor, nn

from vtfast.checkpoints.renaming import rename
from vtfast.checkpoints.timesformer_layout import block_rules, fit_sizes

NAME = "official TimeSformer"


def recognises(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a ViT with embeddings of time, or of any ViT inside a `model`."""
    names = {name.removeprefix("model.") for name in state_dict}
    is_vit = {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"} <= names
    return is_vit and ("time_embed" in names or "model.cls_token" in state_dict)


def convert(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The attention over time has names of its own, the other one those of an image ViT."""
    rules = block_rules(
        "blocks",
        model,
        time={r"temporal_norm1\.": "norm.", r"temporal_attn\.": "attn.", r"temporal_fc\.": "fc."},
        frame={r"norm1\.": "norm.", r"attn\.": "attn."},
        rest={r"norm2\.": "norm."},
    )
    return fit_sizes(rename(rename(state_dict, [(r"model\.", "")]), rules), model)
