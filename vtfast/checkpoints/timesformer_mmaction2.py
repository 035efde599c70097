"""TimeSformer weights of mmaction2."""

from collections.abc import Mapping

from torch import Tensor, nn

from vtfast.checkpoints.renaming import Rule, rename
from vtfast.checkpoints.timesformer_layout import block_rules, fit_sizes

NAME = "mmaction2 TimeSformer"

_RULES: list[Rule] = [(r"patch_embed\.projection\.", "patch_embed.proj."), (r"cls_head\.fc_cls\.", "head.")]
_MLP = {r"ffns\.0\.layers\.0\.0\.": "mlp.fc1.", r"ffns\.0\.layers\.1\.": "mlp.fc2."}


def recognises(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether there are mmcv's transformer layers behind a patch embedding, with or without `backbone.`."""
    names = {name.removeprefix("backbone.") for name in state_dict}
    return {"patch_embed.projection.weight", "transformer_layers.layers.0.attentions.0.attn.in_proj_weight"} <= names


def convert(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """With divided attention, attentions and MLP carry their norms; else the norms are a list of their own."""
    names = rename(state_dict, [(r"backbone\.", "")])
    if "transformer_layers.layers.0.attentions.0.norm.weight" in names:
        time = {r"attentions\.0\.norm\.": "norm.", r"attentions\.0\.temporal_fc\.": "fc.", **_attention(0)}
        frame = {r"attentions\.1\.norm\.": "norm.", **_attention(1)}
        rest = {r"ffns\.0\.norm\.": "norm.", **_MLP}
    else:
        time = {}
        frame = {r"norms\.0\.": "norm.", **_attention(0)}
        rest = {r"norms\.1\.": "norm.", **_MLP}
    rules = block_rules(r"transformer_layers\.layers", model, time=time, frame=frame, rest=rest)
    return fit_sizes(rename(names, _RULES + rules), model)


def _attention(index: int) -> dict[str, str]:
    """The names of `nn.MultiheadAttention`, whose packed projection is that of vtfast."""
    attention = rf"attentions\.{index}\.attn\."
    return {rf"{attention}in_proj_": "attn.qkv.", rf"{attention}out_proj\.": "attn.proj."}
