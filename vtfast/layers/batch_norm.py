"""Batch normalisation of channels-last tokens, and folding it into the layers next to it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norm(
    x: Tensor,  # [B, T, H, W, C]
    layer: nn.Module,
) -> Tensor:  # [B, T, H, W, C]
    """An `nn.BatchNorm3d`, or whatever stands in its place, on tokens.

    The layer sees the tokens as a volume (B, C, T, H, W) in `torch.channels_last_3d`, which is the same memory, and
    PyTorch computes it in that layout. So `nn.SyncBatchNorm.convert_sync_batchnorm` and hooks on the layer work.
    """
    return layer(x.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)


def fold_into_next(norm: nn.Module, layer: nn.Linear) -> nn.Module:
    """Makes `layer` compute what `layer` behind `norm` computes in evaluation; returns what is left of `norm`.

    That is an `nn.Identity`, or `norm` itself if it is no batch normalisation (any more).

    Raises:
        ValueError: `norm` has no running statistics.
    """
    if not isinstance(norm, _BatchNorm):
        return norm
    scale, shift = _scale_and_shift(norm)
    weight = layer.weight.detach().double()
    _replace(layer, weight * scale, weight @ shift + _bias_of(layer))
    return nn.Identity()


def fold_into_previous(layer: nn.Conv3d, norm: nn.Module) -> nn.Module:
    """Likewise for `norm` behind `layer`."""
    if not isinstance(norm, _BatchNorm):
        return norm
    scale, shift = _scale_and_shift(norm)
    weight = layer.weight.detach().double() * scale.view(-1, *[1] * (layer.weight.dim() - 1))
    _replace(layer, weight, _bias_of(layer) * scale + shift)
    return nn.Identity()


def fold_all(model: nn.Module) -> None:
    """Calls `fold_norms()` of every module in `model` that has such a method.

    Raises:
        RuntimeError: the model is in training mode, where the statistics are those of each batch.
    """
    if model.training:
        raise RuntimeError("fuse() needs a model in evaluation mode, got one in training mode: call eval() first")
    for module in list(model.modules()):
        fold_norms = getattr(module, "fold_norms", None)
        if fold_norms is not None:
            fold_norms()


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """While it lasts, batch normalisation inside `module` updates copies of its running statistics.

    For the second of two equal forwards, as in activation checkpointing.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]
    kept = [dict(norm.named_buffers(recurse=False)) for norm in norms]
    try:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update({name: buffer.clone() for name, buffer in buffers.items()})
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update(buffers)


def _scale_and_shift(norm: _BatchNorm) -> tuple[Tensor, Tensor]:  # each [C], float64
    """What the normalisation multiplies by and then adds in evaluation."""
    mean, var = norm.running_mean, norm.running_var
    if mean is None or var is None:
        raise ValueError("a batch normalisation without running statistics cannot be folded")
    scale = torch.rsqrt(var.double() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.detach().double()


def _bias_of(layer: nn.Linear | nn.Conv3d) -> Tensor | float:  # [C'], float64
    return 0.0 if layer.bias is None else layer.bias.detach().double()


def _replace(layer: nn.Linear | nn.Conv3d, weight: Tensor, bias: Tensor) -> None:
    """Sets the parameters in the dtype of the layer."""
    layer.weight = nn.Parameter(weight.to(layer.weight.dtype), layer.weight.requires_grad)
    layer.bias = nn.Parameter(bias.to(layer.weight.dtype), layer.weight.requires_grad)
