"""mmaction2's UniFormer as a user makes the most of it: in the layout of memory that a CPU's convolutions want."""

import copy
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from vtfast.bench.upstreams.uniformer import MMACTION2_UNIFORMER


def with_channels_last(model: nn.Module) -> nn.Module:
    """A copy whose convolutions, and all that lies between them, keep `torch.channels_last_3d`.

    The layout of the weights decides for a convolution. Only the patch embeddings copy to the other one; here they
    leave their tokens where the norm wrote them.
    """
    changed = copy.deepcopy(model).to(memory_format=torch.channels_last_3d)
    for name, module in changed.named_modules():
        if name.split(".")[-1].startswith("patch_embed"):
            module.forward = partial(_embed, module)
    changed.backbone.norm.register_forward_pre_hook(_with_its_own_strides)
    return changed


def _embed(
    module: nn.Module,
    x: Tensor,  # [B, C, T, H, W]
) -> Tensor:  # [B, C', T', H', W']
    tokens = module.proj(x).permute(0, 2, 3, 4, 1)
    return module.norm(tokens).permute(0, 4, 1, 2, 3)


def _with_its_own_strides(norm: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A copy of the small maps before the last norm, or torch 2.13 takes the gradient of a single clip's wrongly.

    Attention leaves them with a stride of clips, of which there is one, that is not the layout's.
    """
    return (args[0].clone(memory_format=torch.channels_last_3d),)


def train_but_last_norm(model: nn.Module) -> nn.Module:
    """In training mode, but for the batch normalisation before the head, which keeps to its running statistics.

    Of a single clip, the mean over all tokens behind it would be the same for whatever clip, and no gradient would
    reach any other layer.
    """
    model.train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm3d)]
    norms[-1].eval()
    return model


UNIFORMER = replace(
    MMACTION2_UNIFORMER,
    patched={"channels_last_3d": with_channels_last},
    compiled=("channels_last_3d",),
    hides_linear_layers=True,
    in_training=train_but_last_norm,
)
