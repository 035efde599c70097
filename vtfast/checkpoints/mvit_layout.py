"""What the upstreams of MViT share: names of poolings, merged projections, tables and positions of another size.

Source: the authors' code, SlowFast, which resizes checkpoints while it loads them.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from math import isqrt

import torch
from torch import Tensor, nn

from vtfast.checkpoints.renaming import Rule, rename
from vtfast.layers.axis_resize import resize_axis
from vtfast.layers.position_embedding import resize_places
from vtfast.ops._arguments import Triple

# Names that no other architecture here has.
_POOLING_ATTENTION = re.compile(r"pos_embed_spatial$|blocks\.\d+\.attn\.((pool|norm)_[qkv]\.|rel_pos_[thw]$)")

# A norm stands beside its convolution there, and inside the pooling in vtfast.
NORM_RULES: list[Rule] = [(r"(blocks\.\d+\.attn)\.norm_([qkv])\.", r"\1.pool_\2.norm.")]


def has_pooling_attention(names: Collection[str]) -> bool:
    """Whether there are learned poolings, relative positions along axes, or positions of places alone.

    A model without all of these, one that pools by average or maximum and has a joint table of positions or none,
    cannot be told from a plain ViT.
    """
    return any(_POOLING_ATTENTION.match(name) for name in names)


def converted(state_dict: Mapping[str, Tensor], rules: Sequence[Rule], model: nn.Module) -> dict[str, Tensor]:
    """Renamed by `rules`, projections merged where those of `model` are, positions resized to its sizes."""
    return fit_positions(_merged_projections(rename(state_dict, rules), model), model)


def _merged_projections(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Three projections to q, k and v as one where `model` has one; with `pool_first` it has three."""
    merged, own = dict(state_dict), model.state_dict().keys()
    for name in state_dict:
        match = re.match(r"(blocks\.\d+\.attn)\.q\.(weight|bias)$", name)
        if match is None or f"{match[1]}.qkv.{match[2]}" not in own:
            continue
        parts = [f"{match[1]}.{part}.{match[2]}" for part in "qkv"]
        if all(part in merged for part in parts):
            merged[f"{match[1]}.qkv.{match[2]}"] = torch.cat([merged.pop(part) for part in parts])
    return merged


def fit_positions(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Relative positions and those of time resized linearly, those of places bicubically, as the authors do.

    The authors only resize squares of places to squares; here the places of `model` may be any rectangle. What cannot
    be resized is left as it is, and so are the entries of other architectures.
    """
    fitted = dict(state_dict)
    for name, own in model.state_dict().items():
        value = fitted.get(name)
        if value is None or value.shape == own.shape or value.dim() != own.dim() or value.numel() == 0:
            continue
        if re.fullmatch(r"blocks\.\d+\.attn\.rel_pos_[thw]", name):
            fitted[name] = resize_axis(value, 0, own.shape[0])
        elif name == "pos_embed_temporal":
            fitted[name] = resize_axis(value, 1, own.shape[1])
        elif name == "pos_embed_spatial":
            fitted[name] = _fit_places(value, model.learned_grid)  # type: ignore[arg-type]
    return fitted


def _fit_places(
    embedding: Tensor,  # [1, n, C]
    learned_grid: Triple,
) -> Tensor:  # [1, H*W, C], or as it was if n is no square
    side = isqrt(embedding.shape[1])
    if side * side != embedding.shape[1]:
        return embedding
    return resize_places(embedding, (side, side), learned_grid[1:], mode="bicubic")
