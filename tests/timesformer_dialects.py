"""Hugging Face's weights under the names of the other upstreams, written the other way round than the converters."""

import re

from torch import Tensor

StateDict = dict[str, Tensor]

_OUTSIDE = {
    "timesformer.embeddings.cls_token": "cls_token",
    "timesformer.embeddings.position_embeddings": "pos_embed",
    "timesformer.embeddings.time_embeddings": "time_embed",
    "timesformer.embeddings.patch_embeddings.projection": "patch_embed.proj",
    "timesformer.layernorm": "norm",
    "classifier": "head",
}
_OFFICIAL = {
    "temporal_layernorm": "temporal_norm1",
    "temporal_attention.attention.qkv": "temporal_attn.qkv",
    "temporal_attention.output.dense": "temporal_attn.proj",
    "temporal_dense": "temporal_fc",
    "layernorm_before": "norm1",
    "attention.attention.qkv": "attn.qkv",
    "attention.output.dense": "attn.proj",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
_DIVIDED_MMACTION2 = {
    "temporal_norm1": "attentions.0.norm",
    "temporal_attn.qkv": "attentions.0.attn.in_proj",
    "temporal_attn.proj": "attentions.0.attn.out_proj",
    "temporal_fc": "attentions.0.temporal_fc",
    "norm1": "attentions.1.norm",
    "attn.qkv": "attentions.1.attn.in_proj",
    "attn.proj": "attentions.1.attn.out_proj",
    "norm2": "ffns.0.norm",
    "mlp.fc1": "ffns.0.layers.0.0",
    "mlp.fc2": "ffns.0.layers.1",
}
_PLAIN_MMACTION2 = {
    "norm1": "norms.0",
    "attn.qkv": "attentions.0.attn.in_proj",
    "attn.proj": "attentions.0.attn.out_proj",
    "norm2": "norms.1",
    "mlp.fc1": "ffns.0.layers.0.0",
    "mlp.fc2": "ffns.0.layers.1",
}


def bare(weights: StateDict) -> StateDict:
    """The authors' names without the prefix of their files."""
    renamed = {}
    for name, value in weights.items():
        if match := re.fullmatch(r"timesformer\.encoder\.layer\.(\d+)\.(.*)\.(weight|bias)", name):
            name = f"blocks.{match[1]}.{_OFFICIAL[match[2]]}.{match[3]}"
        elif name in _OUTSIDE:
            name = _OUTSIDE[name]
        else:
            module, kind = name.rsplit(".", 1)
            name = f"{_OUTSIDE[module]}.{kind}"
        renamed[name] = value
    return renamed


def official(weights: StateDict) -> StateDict:
    """The authors' files."""
    return {f"model.{name}": value for name, value in bare(weights).items()}


def mmaction2(weights: StateDict) -> StateDict:
    """A recogniser with a backbone and a head; the names of its layers depend on the scheme."""
    names = bare(weights)
    layers = _DIVIDED_MMACTION2 if "blocks.0.temporal_fc.weight" in names else _PLAIN_MMACTION2
    renamed = {}
    for name, value in names.items():
        if match := re.fullmatch(r"blocks\.(\d+)\.(.*)\.(weight|bias)", name):
            separator = "_" if layers[match[2]].endswith("in_proj") else "."
            name = f"backbone.transformer_layers.layers.{match[1]}.{layers[match[2]]}{separator}{match[3]}"
        elif name.startswith("head."):
            name = name.replace("head.", "cls_head.fc_cls.")
        else:
            name = "backbone." + name.replace("patch_embed.proj", "patch_embed.projection")
        renamed[name] = value
    return renamed


def timm_image(weights: StateDict) -> StateDict:
    """An image ViT of timm, out of a model of "space" attention."""
    return bare(weights)
