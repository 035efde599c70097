"""A colour map whose order is told by lightness, also by eyes that tell red from green badly, and in print."""

import torch
from torch import Tensor

__all__ = ["viridis"]

# 17 evenly spaced colours of matplotlib's viridis (by N. Smith and S. van der Walt, public domain).
_VIRIDIS = """
    440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c
    1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 fde725
""".split()  # noqa: SIM905


def viridis(
    values: Tensor,  # [...]
) -> Tensor:  # [..., 3]
    """Colours from dark blue for 0 over green to yellow for 1, as red, green and blue in [0, 1]; what is beyond is cut.

    They are at most 6/255 from matplotlib's, which has more of them to mix.
    """
    anchors = torch.tensor([list(bytes.fromhex(colour)) for colour in _VIRIDIS], device=values.device) / 255
    position = values.float().clamp(0, 1).unsqueeze(-1) * (len(anchors) - 1)
    below = position.floor().clamp(max=len(anchors) - 2)
    index = below[..., 0].long()
    return torch.lerp(anchors[index], anchors[index + 1], position - below)
