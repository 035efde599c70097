"""Upstream packages as oracles. torchvision's CUDA wheel serves a CPU torch too, with the two schemas below."""

from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

_library: torch.library.Library | None = None


def torchvision_video() -> ModuleType:
    """`torchvision.models.video`; skips the test where torchvision is not installed."""
    global _library
    if _library is None and not hasattr(torch.ops.torchvision, "nms"):
        # Importing torchvision attaches fake kernels to these operators, which only its compiled library defines.
        _library = torch.library.Library("torchvision", "FRAGMENT")
        _library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return pytest.importorskip("torchvision.models.video")


def torchvision_swin(name: str = "swin3d_t", seed: int = 0, **config: object) -> nn.Module:
    """A Video Swin of torchvision in evaluation mode, every parameter drawn so that it matters."""
    model: nn.Module = getattr(torchvision_video(), name)(**config)
    return randomise(model, seed).eval()


def small_torchvision_swin(**config: object) -> nn.Module:
    """Four stages of one or two narrow blocks: every branch of the architecture in a fraction of a second."""
    video = torchvision_video()
    options: dict[str, object] = {
        "patch_size": [2, 4, 4],
        "embed_dim": 16,
        "depths": [2, 2, 1, 1],
        "num_heads": [2, 4, 4, 8],
        "window_size": [4, 3, 3],
        "num_classes": 7,
    }
    model: nn.Module = video.swin_transformer.SwinTransformer3d(**(options | config))
    return randomise(model, seed=0).eval()


def randomise(model: nn.Module, seed: int) -> nn.Module:
    """Weights that keep the scale of the activations, and biases, norms and tables far from zero and one."""
    generator = torch.Generator().manual_seed(seed)

    def normal(parameter: Tensor, std: float, mean: float = 0.0) -> None:
        parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * std + mean)

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("relative_position_bias_table"):
                normal(parameter, 1.0)
            elif parameter.dim() > 1:
                normal(parameter, parameter[0].numel() ** -0.5)
            elif name.endswith("bias"):
                normal(parameter, 0.5)
            else:
                normal(parameter, 0.2, mean=1.0)
    return model
