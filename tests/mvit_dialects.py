"""A vtfast MViT's weights under the names of the upstreams, written the other way round than the converters."""

import re

import torch
from torch import Tensor

StateDict = dict[str, Tensor]

_TORCHVISION = {
    "patch_embed.proj": "conv_proj",
    "cls_token": "pos_encoding.class_token",
    "pos_embed_class": "pos_encoding.class_pos",
    "pos_embed_spatial": "pos_encoding.spatial_pos",
    "pos_embed_temporal": "pos_encoding.temporal_pos",
    "head": "head.1",
}
_TORCHVISION_BLOCK = {
    "attn.proj": "attn.project.0",
    "attn.pool_q": "attn.pool_q.pool",
    "attn.pool_k": "attn.pool_k.pool",
    "attn.pool_v": "attn.pool_v.pool",
    "attn.pool_q.norm": "attn.pool_q.norm_act.0",
    "attn.pool_k.norm": "attn.pool_k.norm_act.0",
    "attn.pool_v.norm": "attn.pool_v.norm_act.0",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.3",
    "proj": "project",
}


def slowfast(weights: StateDict) -> StateDict:
    """The authors' repository."""
    renamed = {}
    for name, value in weights.items():
        name = re.sub(r"attn\.pool_(.)\.norm", r"attn.norm_\1", name)
        renamed[re.sub(r"^head", "head.projection", name)] = value
    return renamed


def separated(weights: StateDict) -> StateDict:
    """The projections to q, k and v apart."""
    apart = {}
    for name, value in weights.items():
        if ".qkv." in name:
            apart |= {
                name.replace(".qkv.", f".{part}."): rows for part, rows in zip("qkv", value.chunk(3), strict=True)
            }
        else:
            apart[name] = value
    return apart


def slowfast_separate(weights: StateDict) -> StateDict:
    """The authors' repository with `SEPARATE_QKV`."""
    return separated(slowfast(weights))


def torchvision(weights: StateDict) -> StateDict:
    """Torchvision, whose positions have no batch axis."""
    renamed = {}
    for name, value in weights.items():
        if name in ("cls_token", "pos_embed_class"):
            value = value[0, 0]
        elif name.startswith("pos_embed"):
            value = value[0]
        module, _, kind = name.rpartition(".")
        if match := re.fullmatch(r"(blocks\.\d+)\.(.*)", module):
            name = f"{match[1]}.{_TORCHVISION_BLOCK.get(match[2], match[2])}.{kind}"
        elif module:
            name = f"{_TORCHVISION.get(module, module)}.{kind}"
        else:
            name = _TORCHVISION[kind]
        renamed[name] = value
    return renamed


def pytorchvideo_merged(weights: StateDict) -> StateDict:
    """PyTorchVideo with `separate_qkv=False`, without the copies of its poolings."""
    renamed = {}
    for name, value in slowfast(weights).items():
        name = name.replace("head.projection", "head.proj").replace("patch_embed.proj", "patch_embed.patch_model")
        if name.startswith(("cls_token", "pos_embed")):
            name = f"cls_positional_encoding.{name}"
        renamed[re.sub(r"^norm\.", "norm_embed.", name)] = value
    return renamed


def pytorchvideo(weights: StateDict) -> StateDict:
    """Release 0.1.5 of PyTorchVideo."""
    return separated(pytorchvideo_merged(weights))


def pytorchvideo_later(weights: StateDict) -> StateDict:
    """The repository of PyTorchVideo after its last release, where every pooling also stands in a module of its own."""
    names = pytorchvideo(weights)
    copies = pytorchvideo_deduplicated(weights)
    return names | copies


def pytorchvideo_deduplicated(weights: StateDict) -> StateDict:
    """The same, of two equal entries only the one that sorts first."""
    renamed = {}
    for name, value in pytorchvideo(weights).items():
        renamed[re.sub(r"attn\.(pool|norm)_(.)\.", r"attn._attention_pool_\2.\1.", name)] = value
    return renamed


def pytorchvideo_wrapped(weights: StateDict) -> StateDict:
    """PyTorchVideo's model trained by SlowFast."""
    return {f"model.{name}": value for name, value in pytorchvideo(weights).items()}


def mmaction2(weights: StateDict) -> StateDict:
    """A recogniser with a backbone and a head; the final norm has the number of the last of four stages."""
    renamed = {}
    for name, value in slowfast(weights).items():
        if name.startswith("head."):
            name = name.replace("head.projection", "cls_head.fc_cls")
        else:
            name = "backbone." + re.sub(r"^norm\.", "norm3.", name).replace(
                "patch_embed.proj", "patch_embed.projection"
            )
        renamed[name] = value
    return renamed


def slowfast_image(weights: StateDict) -> StateDict:
    """The authors' video repository, out of a model of one frame: a 2D patch embedding and a joint table of positions.

    MViTv2 has no table.
    """
    image = slowfast(weights)
    image["patch_embed.proj.weight"] = image["patch_embed.proj.weight"][:, :, 0]
    if "pos_embed_spatial" in image:
        image["pos_embed"] = image.pop("pos_embed_spatial")
        del image["pos_embed_temporal"]
    if "pos_embed_class" in image:
        image["pos_embed"] = torch.cat([image.pop("pos_embed_class"), image["pos_embed"]], dim=1)
    return image


def authors_image(weights: StateDict) -> StateDict:
    """The authors' repository of image models, out of a model of one frame; poolings are 2D, too."""
    return {name: value[:, :, 0] if value.dim() == 5 else value for name, value in slowfast_image(weights).items()}


def pytorchvideo_image(weights: StateDict) -> StateDict:
    """PyTorchVideo, out of a model of one frame, which has a position in time."""
    names = pytorchvideo(weights)
    return names | {"patch_embed.patch_model.weight": names["patch_embed.patch_model.weight"][:, :, 0]}
