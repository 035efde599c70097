"""What the upstreams of UniFormerV2 share: CLIP's names, those of the authors, and positions of another size."""

from collections.abc import Mapping, Sequence
from math import isqrt

from torch import Tensor, nn

from vtfast.checkpoints.renaming import Rule, rename
from vtfast.checkpoints.uniformer_layout import squeezed
from vtfast.layers.position_embedding import resize_places


def _attention_rules(theirs: str, own: str) -> list[Rule]:
    return [
        (rf"{theirs}attn\.in_proj_", rf"{own}attn.qkv."),
        (rf"{theirs}attn\.out_proj\.", rf"{own}attn.proj."),
        (rf"{theirs}mlp\.c_fc\.", rf"{own}mlp.fc1."),
        (rf"{theirs}mlp\.c_proj\.", rf"{own}mlp.fc2."),
        (rf"{theirs}(ln_[123])\.", rf"{own}\2."),
    ]


_BLOCK = r"transformer\.resblocks\.(\d+)\."

# The names of CLIP's image tower.
CLIP_RULES: list[Rule] = [(r"conv1\.", "patch_embed.proj."), *_attention_rules(_BLOCK, r"blocks.\1.")]

_LOCAL = _BLOCK + r"(lmhra[12])\.pos_embed\."
RULES: list[Rule] = [
    *CLIP_RULES,
    *((rf"{_LOCAL}{i}\.", rf"blocks.\1.\2.{name}.") for i, name in enumerate(("norm", "reduce", "conv", "expand"))),
    (r"transformer\.dpe\.(\d+)\.", r"global_blocks.\1.dpe."),
    *_attention_rules(r"transformer\.dec\.(\d+)\.", r"global_blocks.\1."),
    (r"transformer\.(temporal_cls_token|balance)$", r"\1"),
]


def converted(state_dict: Mapping[str, Tensor], rules: Sequence[Rule], model: nn.Module) -> dict[str, Tensor]:
    """Renamed by `rules`, convolutions of single tokens as linear layers, positions resized to those of `model`."""
    return fit_positions(squeezed(rename(state_dict, rules), model), model, always_square=True)


def fit_positions(
    state_dict: Mapping[str, Tensor], model: nn.Module, *, always_square: bool = False
) -> dict[str, Tensor]:
    """The positions of a square of places, resized bicubically to those of `model`; the authors only know one size.

    Where they are of no square, and in other architectures, all is as it was; and where they are as many as the
    model's, unless they are `always_square`, as those of the authors are and those that vtfast saved need not be.
    """
    fitted, name = dict(state_dict), "positional_embedding"
    own, value = model.state_dict().get(name), state_dict.get(name)
    if own is None or value is None or value.dim() != 2 or (len(value) == len(own) and not always_square):
        return fitted
    side = isqrt(len(value) - 1)
    if side > 0 and side * side == len(value) - 1:
        places: tuple[int, int] = model.places  # type: ignore[assignment]
        fitted[name] = resize_places(value.float()[None], (side, side), places, mode="bicubic")[0]
    return fitted
