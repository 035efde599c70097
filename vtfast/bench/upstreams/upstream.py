"""Whole models of an upstream as peers, and vtfast's with the same weights; here torchvision's Video Swin."""

import copy
import importlib
import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import vtfast
from vtfast import use_backend
from vtfast.bench.measure import NotSupportedError, Outputs, Way
from vtfast.bench.shapes import ModelShape
from vtfast.checkpoints import video_swin_torchvision

Rename = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]

# What torch.compile and `on_reference` put before the names of a model's parameters.
_WRAPPERS = re.compile(r"^(_orig_mod\.|model\.)+")

_library: torch.library.Library | None = None


def torchvision_video() -> ModuleType:
    """`torchvision.models.video`.

    Raises:
        NotSupportedError: torchvision is not installed.
    """
    declare_torchvision_operations()
    try:
        return importlib.import_module("torchvision.models.video")
    except ImportError as error:
        raise NotSupportedError(f"torchvision does not import ({error})") from error


def declare_torchvision_operations() -> None:
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


@dataclass(frozen=True)
class Upstream:
    """Models that vtfast has too, under the weights of both.

    Args:
        name: whose.
        make: the model with seeded weights, without stochastic depth, so that a training step has one right result. It
            takes clips (B, C, T, H, W) and returns logits.
        convert: entries under the upstream's names (weights, gradients) -> under those of a model of vtfast.
        patched: what else users make of the model: name of the way -> the model changed, in a copy.
        compiled: names of `patched` that also take part compiled.
        hides_linear_layers: whether some of them are convolutions, or inside of torch's own attention; then those of
            vtfast's model are the floor.
        in_training: a model of either -> the same in the mode of a training step.
        options: of vtfast's model, for the same sizes and the same behaviour in training.
        compared: gradients under vtfast's names -> what is compared of them.
    """

    name: str
    make: Callable[[ModelShape], nn.Module]
    convert: Callable[[Mapping[str, Tensor], nn.Module], dict[str, Tensor]]
    patched: Mapping[str, Callable[[nn.Module], nn.Module]] = field(default_factory=dict)
    compiled: Sequence[str] = ()
    hides_linear_layers: bool = False
    in_training: Callable[[nn.Module], nn.Module] = nn.Module.train
    options: Callable[[ModelShape], Mapping[str, Any]] = lambda shape: {"drop_path_rate": 0.0}
    compared: Rename = dict

    def ours(self, shape: ModelShape, theirs: nn.Module | None = None) -> nn.Module:
        """The model of vtfast, with the weights of `theirs` if given."""
        weights = theirs and theirs.state_dict()
        return vtfast.create_model(shape.model, checkpoint=weights, **self.options(shape), **shape.config)

    def in_mode(self, model: nn.Module, training: bool) -> nn.Module:
        """The model, ready for a training step or for inference."""
        return self.in_training(model) if training else model.eval()

    def rename(self, ours: nn.Module) -> Rename:
        """Gradients by the upstream's names, or by vtfast's -> what is compared of them, by vtfast's."""
        own = {name for name, _ in ours.named_parameters()}

        def renamed(gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return self.compared(gradients if set(gradients) == own else self.convert(gradients, ours))

        return renamed


def _torchvision_swin(shape: ModelShape) -> nn.Module:
    video = torchvision_video()
    torch.manual_seed(0)
    model: nn.Module = getattr(video, shape.model)()
    for module in model.modules():
        if type(module).__name__ == "StochasticDepth":
            module.p = 0.0
    return model


TORCHVISION = Upstream("torchvision", _torchvision_swin, video_swin_torchvision.convert)


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


def training_way(name: str, model: nn.Module, clip: Tensor, rename: Rename, autocast: bool = False) -> Way:
    """Forward, loss and backward; no optimiser. `rename` brings gradients by name under the names of vtfast.

    The losses of a model with several heads are summed up.
    """

    def run() -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        with torch.autocast(clip.device.type, torch.bfloat16, enabled=autocast):
            returned = model(clip)
        heads = (returned,) if isinstance(returned, Tensor) else tuple(returned)
        losses = [F.cross_entropy(x.float() if autocast else x, labels_of(x)) for x in heads]
        torch.stack(losses).sum().backward()
        gradients = {}
        for parameter_name, parameter in model.named_parameters():
            assert parameter.grad is not None
            gradients[_WRAPPERS.sub("", parameter_name)] = parameter.grad
            parameter.grad = None
        return tuple(logits.detach() for logits in heads), gradients

    def outputs(returned: tuple[tuple[Tensor, ...], dict[str, Tensor]]) -> Outputs:
        logits, gradients = returned
        return (*logits, *(gradient for _, gradient in sorted(rename(gradients).items())))

    return Way(name, run, outputs)


def labels_of(logits: Tensor) -> Tensor:
    """A class for each clip."""
    return torch.arange(len(logits), device=logits.device)


def in_float64(model: nn.Module) -> nn.Module:
    """A copy in double precision: the reference of every row."""
    return copy.deepcopy(model).double()


class OnReference(nn.Module):
    """A model of vtfast that runs on the reference, in forward and backward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        clip: Tensor,  # [B, 3, T, H, W]
    ) -> Tensor:  # [B, num_classes]
        with use_backend("reference"):
            logits: Tensor = self.model(clip)
        return logits


def on_reference(model: nn.Module) -> nn.Module:
    """A copy of a model of vtfast that runs on the reference: plain PyTorch."""
    return OnReference(copy.deepcopy(model))


def linear_layers_way(model: nn.Module, clip: Tensor, dtype: torch.dtype, training: bool, device: str = "cpu") -> Way:
    """All linear layers of the model's forward (and their backward), on their own inputs' sizes, and nothing else.

    No kernel but a GEMM's could make a model faster than this; the convolution of the patch embedding is not in it.
    """
    recorder = _RecordLinear()
    with torch.no_grad(), use_backend("reference"), recorder:
        model(clip)
    layers = []
    for size, weight, bias in recorder.calls:
        x = torch.randn(size).to(device, dtype).requires_grad_(training)
        parameters = [p.detach().to(device, dtype).requires_grad_(training) for p in (weight, bias) if p is not None]
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
