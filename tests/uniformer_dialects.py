"""Weights of vtfast's UniFormer and UniFormerV2 under the names of the upstreams, written the other way round."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

StateDict = dict[str, Tensor]

# Linear layers here that are convolutions of single tokens there.
_SINGLE_TOKENS = re.compile(r"blocks[12]\.\d+\.(conv[12]|mlp\.fc[12])\.weight$")


def uniformer(weights: StateDict) -> StateDict:
    """The authors' repository."""
    there = {}
    for name, value in weights.items():
        if _SINGLE_TOKENS.match(name):
            value = value[:, :, None, None, None]
        elif re.match(r"blocks[12]\.\d+\.gamma_", name):
            value = value.reshape(1, -1, 1, 1, 1)
        there[name] = value
    return there


def behind_backbone(weights: StateDict) -> StateDict:
    """All of it as part of a larger model."""
    return {f"backbone.{name}": value for name, value in weights.items()}


def uniformer_backbone(weights: StateDict) -> StateDict:
    """The authors' names as part of a larger model."""
    return behind_backbone(uniformer(weights))


def uniformer_mmaction2(weights: StateDict) -> StateDict:
    """A recogniser of mmaction2: a backbone and a head."""
    body = {name: value for name, value in uniformer(weights).items() if not name.startswith("head.")}
    head = {name: value for name, value in weights.items() if name.startswith("head.")}
    return behind_backbone(body) | _renamed(head, {r"^head": "cls_head.fc_cls"})


def uniformer_image(weights: StateDict) -> StateDict:
    """The authors' image models: the sum over the time of each kernel, which inflation spreads evenly."""
    return {name: value.sum(2) if value.dim() == 5 else value for name, value in uniformer(weights).items()}


_CLIP = {
    r"^patch_embed\.proj": "conv1",
    r"^blocks\.": "transformer.resblocks.",
    r"^global_blocks\.(\d+)\.dpe": r"transformer.dpe.\1",
    r"^global_blocks\.": "transformer.dec.",
    r"attn\.qkv\.": "attn.in_proj_",
    r"attn\.proj\.": "attn.out_proj.",
    r"mlp\.fc1": "mlp.c_fc",
    r"mlp\.fc2": "mlp.c_proj",
    r"(lmhra\d)\.norm": r"\1.pos_embed.0",
    r"(lmhra\d)\.reduce": r"\1.pos_embed.1",
    r"(lmhra\d)\.conv": r"\1.pos_embed.2",
    r"(lmhra\d)\.expand": r"\1.pos_embed.3",
    r"^(temporal_cls_token|balance)$": r"transformer.\1",
}


def uniformer_v2_bare(weights: StateDict) -> StateDict:
    """The authors' repository, without the prefix of its files."""
    there = {
        name: value[:, :, None, None, None] if re.search(r"lmhra\d\.(reduce|expand)\.weight$", name) else value
        for name, value in weights.items()
    }
    return _renamed(there, {**_CLIP, r"^norm": "transformer.proj.0", r"^head": "transformer.proj.2"})


def uniformer_v2(weights: StateDict) -> StateDict:
    """The authors' repository."""
    return behind_backbone(uniformer_v2_bare(weights))


def uniformer_v2_mmaction2_bare(weights: StateDict) -> StateDict:
    """The backbone of mmaction2 alone, out of weights without head."""
    return _renamed(uniformer_v2_bare(weights), {r"transformer\.proj\.0": "transformer.norm"})


def uniformer_v2_mmaction2(weights: StateDict) -> StateDict:
    """A recogniser of mmaction2: a backbone and a head."""
    there = behind_backbone(uniformer_v2_mmaction2_bare(weights))
    return _renamed(there, {r"backbone\.transformer\.proj\.2": "cls_head.fc_cls"})


def clip_tower(weights: StateDict) -> StateDict:
    """CLIP's image tower as the authors extract it, out of the middle of the patch embedding."""
    shared = re.compile(r"(patch_embed|ln_pre)\.|(class|positional)_embedding$|blocks\.\d+\.(attn|mlp|ln_\d)\.")
    there = _renamed({name: value for name, value in weights.items() if shared.match(name)}, _CLIP)
    kernel = there["conv1.weight"]
    return there | {"conv1.weight": kernel[:, :, kernel.shape[2] // 2]}


def clip(weights: StateDict) -> StateDict:
    """OpenAI's CLIP whole: towers of images and of text, and what only CLIP itself needs."""
    tower = clip_tower(weights)
    width = len(tower["class_embedding"])
    tower |= {"ln_post.weight": torch.ones(width), "ln_post.bias": torch.ones(width), "proj": torch.ones(width, 5)}
    text = {name: value[:1] for name, value in tower.items() if name.startswith("transformer.")}
    text |= {"positional_embedding": torch.ones(7, 4), "text_projection": torch.ones(4, 5)}
    return {f"visual.{name}": value for name, value in tower.items()} | text | {"logit_scale": torch.ones(())}


def clip_huggingface(weights: StateDict) -> StateDict:
    """The same in Hugging Face's transformers."""
    names = {
        r"^conv1": "embeddings.patch_embedding",
        r"^class_embedding": "embeddings.class_embedding",
        r"^positional_embedding": "embeddings.position_embedding.weight",
        r"^ln_pre": "pre_layrnorm",
        r"^transformer\.resblocks": "encoder.layers",
        r"attn\.out_proj": "self_attn.out_proj",
        r"\.ln_(\d)": r".layer_norm\1",
        r"c_fc": "fc1",
        r"c_proj": "fc2",
    }
    tower = {}
    for name, value in _renamed(clip_tower(weights), names).items():
        parts = [name.replace("attn.in_proj_", f"self_attn.{part}_proj.") for part in "qkv"]
        tower |= dict(zip(parts, value.chunk(3), strict=True)) if "in_proj" in name else {name: value}
    tower |= {"embeddings.position_ids": torch.arange(3)[None], "post_layernorm.weight": torch.ones(1)}
    text = {f"text_model.{name}": value[:1] for name, value in tower.items() if name.startswith("encoder.")}
    whole = {f"vision_model.{name}": value for name, value in tower.items()} | text
    return whole | {"visual_projection.weight": torch.ones(5, 4), "logit_scale": torch.ones(())}


def _renamed(weights: StateDict, names: Mapping[str, str]) -> StateDict:
    """Every pattern replaced by its name, one after the other."""
    renamed = {}
    for name, value in weights.items():
        for pattern, replacement in names.items():
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed
