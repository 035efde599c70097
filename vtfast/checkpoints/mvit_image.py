"""2D MViT weights of images, inflated to video: SlowFast's, those of facebookresearch/mvit, and PyTorchVideo's.

Patch embedding and poolings are repeated over time and, as published, not divided by the number of repeats. What an
image has no counterpart for, cls in MViTv2 and positions in time, the model keeps as its own.

Source: the initialisation from images in the authors' code, SlowFast.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vtfast.checkpoints import mvit_pytorchvideo, mvit_slowfast
from vtfast.checkpoints.inflation import without_other_head
from vtfast.checkpoints.mvit_layout import converted
from vtfast.checkpoints.renaming import rename

NAME = "2D image MViT"

KEPT = re.compile(r"cls_token$|pos_embed_(class|temporal)$|blocks\.\d+\.attn\.rel_pos_t$|head\.")


def recognises(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of SlowFast or PyTorchVideo, and the patch embedding is 2D."""
    names = ("patch_embed.proj.weight", "patch_embed.patch_model.weight")
    is_image = any(name in state_dict and state_dict[name].dim() == 4 for name in names)
    return is_image and (mvit_slowfast.recognises(state_dict) or mvit_pytorchvideo.recognises(state_dict))


def convert(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Renames, then inflates; `model` keeps its own head if its classes are others than the image model's."""
    own = model.state_dict()
    upstream = mvit_slowfast if mvit_slowfast.recognises(state_dict) else mvit_pytorchvideo
    image = _separate_positions(rename(state_dict, upstream.RULES), own)
    inflated = {name: _repeated(value, own.get(name)) for name, value in converted(image, [], model).items()}
    return without_other_head(inflated, own)


def _separate_positions(image: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A joint table as the positions of cls and of places; of time there are none in an image."""
    separate = dict(image)
    if "pos_embed" not in image or "pos_embed_spatial" not in own:
        return separate
    joint, num_prefix = separate.pop("pos_embed"), int("cls_token" in image)
    separate["pos_embed_spatial"] = joint[:, num_prefix:]
    if num_prefix:
        separate["pos_embed_class"] = joint[:, :1]
    if own["pos_embed_temporal"].shape[1] == 1:
        separate["pos_embed_temporal"] = torch.zeros_like(own["pos_embed_temporal"])
    return separate


def _repeated(
    value: Tensor,  # [O, I, kh, kw] or [O, I, 1, kh, kw] of a convolution, any shape of others
    own: Tensor | None,  # [O, I, kt, kh, kw]
) -> Tensor:  # [O, I, kt, kh, kw], or as it was
    if own is None or own.dim() != 5 or value.dim() not in (4, 5):
        return value
    volume = value.unsqueeze(2) if value.dim() == 4 else value
    return volume.expand(-1, -1, own.shape[2], -1, -1) if volume.shape[2] == 1 else volume
