"""torchvision's Video Swin as a peer, and vtfast's with the same weights."""

import copy
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import vtfast
from benchmarks.measure import NotSupportedError, Outputs, Way
from benchmarks.shapes import ModelShape
from vtfast.checkpoints import video_swin_torchvision

_library: torch.library.Library | None = None


def torchvision_video() -> ModuleType:
    """`torchvision.models.video`.

    Raises:
        NotSupportedError: torchvision is not installed.
    """
    _declare_operations()
    try:
        return importlib.import_module("torchvision.models.video")
    except ImportError as error:
        raise NotSupportedError(f"torchvision does not import ({error})") from error


def _declare_operations() -> None:
    """Schemas that torchvision needs, where its compiled part (of a wheel for CUDA, say) does not load beside torch."""
    global _library
    spec = importlib.util.find_spec("torchvision")
    if _library is not None or hasattr(torch.ops.torchvision, "nms") or spec is None or not spec.origin:
        return
    try:
        torch.ops.load_library(next(Path(spec.origin).parent.glob("_C*.so")))
    except (OSError, StopIteration):
        _library = torch.library.Library("torchvision", "FRAGMENT")
        _library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def torchvision_model(name: str) -> nn.Module:
    """The model with seeded weights, without stochastic depth, so that a training step has one right result."""
    video = torchvision_video()
    torch.manual_seed(0)
    model: nn.Module = getattr(video, name)()
    for module in model.modules():
        if type(module).__name__ == "StochasticDepth":
            module.p = 0.0
    return model


def vtfast_model(name: str, weights: nn.Module | None = None) -> nn.Module:
    """The same of vtfast, with the weights of torchvision's if given."""
    return vtfast.create_model(name, checkpoint=weights and weights.state_dict(), drop_path_rate=0.0)


def clip_of(shape: ModelShape) -> Tensor:
    """A clip of standard normal numbers."""
    return torch.randn(shape.clip, generator=torch.Generator().manual_seed(1))


def forward_way(name: str, model: nn.Module, clip: Tensor, autocast: bool = False) -> Way:
    """Clip to logits, without gradients."""

    @torch.no_grad()
    def run() -> Tensor:
        with torch.autocast(clip.device.type, torch.bfloat16, enabled=autocast):
            return model(clip)

    return Way(name, run, lambda logits: (logits,))


def training_way(
    name: str, model: nn.Module, clip: Tensor, rename: Callable[..., dict[str, Tensor]], autocast: bool = False
) -> Way:
    """Forward, loss and backward; no optimiser. `rename` brings gradients by name under the names of vtfast."""

    def run() -> tuple[Tensor, dict[str, Tensor]]:
        with torch.autocast(clip.device.type, torch.bfloat16, enabled=autocast):
            logits = model(clip)
        F.cross_entropy(logits.float() if autocast else logits, labels_of(logits)).backward()
        gradients = {}
        for parameter_name, parameter in model.named_parameters():
            assert parameter.grad is not None
            gradients[parameter_name.removeprefix("_orig_mod.")] = parameter.grad
            parameter.grad = None
        return logits.detach(), gradients

    def outputs(returned: tuple[Tensor, dict[str, Tensor]]) -> Outputs:
        logits, gradients = returned
        return (logits, *(gradient for _, gradient in sorted(rename(gradients).items())))

    return Way(name, run, outputs)


def labels_of(logits: Tensor) -> Tensor:
    """A class for each clip."""
    return torch.arange(len(logits), device=logits.device)


def rename_gradients(model: nn.Module) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """Gradients under torchvision's names -> under those of `model`, which is vtfast's."""
    return lambda gradients: video_swin_torchvision.convert(gradients, model)


def in_float64(model: nn.Module) -> nn.Module:
    """A copy in double precision: the reference of every row."""
    return copy.deepcopy(model).double()


def linear_layers_way(model: nn.Module, clip: Tensor, dtype: torch.dtype, training: bool) -> Way:
    """All linear layers of the model's forward (and their backward), on their own inputs' sizes, and nothing else.

    No kernel but a GEMM's could make a model faster than this; the convolution of the patch embedding is not in it.
    """
    recorder = _RecordLinear()
    with torch.no_grad(), recorder:
        model(clip)
    layers = []
    for size, weight, bias in recorder.calls:
        x = torch.randn(size).to(dtype).requires_grad_(training)
        parameters = [p.detach().to(dtype).requires_grad_(training) for p in (weight, bias) if p is not None]
        layers.append((x, parameters))

    def run() -> None:
        with torch.set_grad_enabled(training):
            for x, parameters in layers:
                out = F.linear(x, *parameters)
                if training:
                    torch.autograd.grad(out, (x, *parameters), out.detach())

    return Way("linear layers", run)


class _RecordLinear(TorchFunctionMode):
    """Notes the input size and the parameters of every linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[tuple[int, ...], Tensor, Tensor | None]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.linear:
            x, weight, *rest = args
            self.calls.append((tuple(x.shape), weight, rest[0] if rest else kwargs.get("bias")))
        return func(*args, **kwargs)
