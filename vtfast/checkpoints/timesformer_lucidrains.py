"""Weights of timesformer-pytorch."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from vtfast.checkpoints.renaming import Rule, rename
from vtfast.layers.rotary import axial_scales, frame_frequencies

NAME = "timesformer-pytorch"

_MLP = r"layers\.(\d+)\.2\."


def _step_rules(index: int, scheme: str) -> list[Rule]:
    theirs, own = rf"layers\.(\d+)\.{index}\.", rf"blocks.\1.steps.over_{scheme}."
    return [
        (theirs + r"norm\.", own + "norm."),
        (theirs + r"fn\.(?:fn\.)?to_qkv\.", own + "attn.qkv."),
        (theirs + r"fn\.(?:fn\.)?to_out\.0\.", own + "attn.proj."),
    ]


_RULES: list[Rule] = [
    (r"(frame_rot_emb|image_rot_emb)\.", None),
    (r"to_patch_embedding\.", "patch_embed.proj."),
    (r"pos_emb\.weight$", "pos_embed"),
    *_step_rules(0, "time"),
    *_step_rules(1, "space"),
    (_MLP + r"norm\.", r"blocks.\1.norm."),
    (_MLP + r"fn\.(?:fn\.)?net\.0\.", r"blocks.\1.mlp.fc1."),
    (_MLP + r"fn\.(?:fn\.)?net\.3\.", r"blocks.\1.mlp.fc2."),
    (r"to_out\.0\.", "norm."),
    (r"to_out\.1\.", "head."),
]

# Buffers that follow from head_dim.
_BUFFERS: dict[str, Callable[[int], Tensor]] = {
    "frame_rot_emb.inv_freqs": frame_frequencies,
    "image_rot_emb.scales": axial_scales,
}


def recognises(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the patch embedding is a linear layer under its name there, and blocks are numbered inside `layers`."""
    return "to_patch_embedding.weight" in state_dict and "layers.0.0.norm.weight" in state_dict


def convert(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Renames, and gives the patch, there (p1 p2 c) in one axis, the layout of a convolution.

    Raises:
        ValueError: the weights were trained with `shift_tokens` and the model is without, or the reverse, or with
            another `head_dim` or frequencies: all names and shapes might fit, and the logits would be wrong.
    """
    _check_options(state_dict, model)
    own, converted = model.state_dict(), rename(state_dict, _RULES)
    for name in ("cls_token", "pos_embed"):
        if name in converted:
            converted[name] = converted[name][None]
    name = "patch_embed.proj.weight"
    if name in own:
        converted[name] = _as_convolution(converted[name], own[name])
    return converted


def _as_convolution(
    weight: Tensor,  # [C', p*p*C]
    own: Tensor,  # [C', C, 1, p, p]
) -> Tensor:  # [C', C, 1, p, p], or as it is if the sizes differ
    _, channels, frames, height, width = own.shape
    if weight.dim() != 2 or weight.shape[1] != channels * frames * height * width:
        return weight
    return weight.unflatten(1, (height, width, channels)).permute(0, 3, 1, 2)[:, :, None]


def _check_options(state_dict: Mapping[str, Tensor], model: nn.Module) -> None:
    shifts, own_shifts = any(".fn.fn." in name for name in state_dict), getattr(model, "shift_tokens", None)
    if own_shifts is not None and shifts != own_shifts:
        raise ValueError(f"shift_tokens must be {shifts} as in the checkpoint, got a model with {own_shifts}")
    head_dim = getattr(model, "head_dim", None)
    for name, expected in _BUFFERS.items():
        if head_dim is None or name not in state_dict:
            continue
        buffer, wanted = state_dict[name].float(), expected(head_dim)
        # A checkpoint may be saved in half precision.
        if buffer.shape != wanted.shape or not torch.allclose(buffer, wanted, rtol=1e-2, atol=1e-6):
            raise ValueError(
                f"head_dim must be that of the checkpoint: {name} in it has {buffer.numel()} frequencies from "
                f"{buffer.max():.4g} to {buffer.min():.4g}, but head_dim = {head_dim} has {wanted.numel()} from "
                f"{wanted.max():.4g} to {wanted.min():.4g}"
            )
