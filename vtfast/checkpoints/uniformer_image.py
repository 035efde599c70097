"""2D UniFormer weights of images, inflated to video as published.

A convolution is repeated over time and divided by the number of repeats, so that a still clip gives the image's tokens
wherever the clip does not end. What image models lack, attention over time and, in most of them, layer scale, the model
keeps as its own.

Source: the initialisation from images in the authors' code.
"""

import re
from collections.abc import Mapping

from torch import Tensor, nn

from vtfast.checkpoints.inflation import without_other_head
from vtfast.checkpoints.renaming import rename
from vtfast.checkpoints.uniformer_layout import is_uniformer, squeezed

NAME = "2D image UniFormer"

KEPT = re.compile(r"blocks\d\.\d+\.(t_norm\.|t_attn\.|gamma_[12]$)|head\.|head_cls\.")


def recognises(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of UniFormer, and the convolutions of single tokens are 2D."""
    return is_uniformer(state_dict, dims=4)


def convert(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Squeezes, then inflates; `model` keeps its own heads if its classes are others than the image model's."""
    own = model.state_dict()
    image = squeezed(rename(state_dict, [(r"backbone\.", "")]), model)
    return without_other_head({name: _repeated(value, own.get(name)) for name, value in image.items()}, own)


def _repeated(
    value: Tensor,  # [O, I, kh, kw] of a convolution, any shape of others
    own: Tensor | None,  # [O, I, kt, kh, kw]
) -> Tensor:  # [O, I, kt, kh, kw], or as it was
    if own is None or own.dim() != 5 or value.dim() != 4:
        return value
    return value.unsqueeze(2).expand(-1, -1, own.shape[2], -1, -1) / own.shape[2]
