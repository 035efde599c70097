"""Torchvision's weights under the names of the other upstreams, written the other way round than the converters."""

import re

import torch
from torch import Tensor

StateDict = dict[str, Tensor]


def official(weights: StateDict) -> StateDict:
    """The official Video Swin repository: a recogniser with a backbone and a head."""
    renamed = {}
    for name, value in weights.items():
        if match := re.fullmatch(r"features\.(\d+)\.(\d+)\.(.*)", name):
            rest = match[3].replace("mlp.0", "mlp.fc1").replace("mlp.3", "mlp.fc2")
            name = f"backbone.layers.{int(match[1]) // 2}.blocks.{match[2]}.{rest}"
        elif match := re.fullmatch(r"features\.(\d+)\.(.*)", name):
            name = f"backbone.layers.{int(match[1]) // 2}.downsample.{match[2]}"
        elif name.startswith("head."):
            name = name.replace("head.", "cls_head.fc_cls.")
        else:
            name = f"backbone.{name}"
        renamed[name] = value
    return renamed


def mmaction2(weights: StateDict) -> StateDict:
    """The official names, but for the final norm, which carries the number of its stage."""
    return {name.replace("backbone.norm.", "backbone.norm3."): value for name, value in official(weights).items()}


def official_image(weights: StateDict) -> StateDict:
    """The official 2D Swin repository, out of a 2D model under torchvision's 3D names."""
    renamed = official(weights)
    renamed = {name.removeprefix("backbone.").replace("cls_head.fc_cls.", "head."): v for name, v in renamed.items()}
    return renamed | {"layers.0.blocks.1.attn_mask": torch.zeros(4, 9, 9)}


def timm_image(weights: StateDict) -> StateDict:
    """The 2D Swin of timm, which merges at the beginning of a stage."""

    def merge_first(match: re.Match[str]) -> str:
        return f"layers.{int(match[1]) + 1}.downsample"

    renamed = {re.sub(r"layers\.(\d)\.downsample", merge_first, name): v for name, v in official_image(weights).items()}
    return {re.sub(r"^head\.", "head.fc.", name): value for name, value in renamed.items()}


def torchvision_image(weights: StateDict) -> StateDict:
    """The 2D Swin of torchvision, whose patch embedding is the first entry of `features`."""
    renamed = {}
    for name, value in weights.items():
        name = re.sub(r"^features\.(\d)", lambda match: f"features.{int(match[1]) + 1}", name)
        name = name.replace("patch_embed.proj", "features.0.0").replace("patch_embed.norm", "features.0.2")
        renamed[name] = value
    return renamed


def image_weights(weights: StateDict, window: tuple[int, int, int]) -> StateDict:
    """A 2D model inside a 3D one: its first frame of the patch weight, the middle of its bias tables in time."""
    offsets = [2 * size - 1 for size in window]
    flat = {}
    for name, value in weights.items():
        if name == "patch_embed.proj.weight":
            value = value[:, :, 0]
        elif name.endswith("relative_position_bias_table"):
            value = value.unflatten(0, offsets)[window[0] - 1].flatten(0, 1)
        flat[name] = value
    return flat
