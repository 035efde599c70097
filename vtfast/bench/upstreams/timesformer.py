"""TimeSformers as peers: that of transformers, or of plain PyTorch where it is missing, and timesformer-pytorch's."""

import copy
import importlib
import warnings
from collections.abc import Callable, Mapping
from types import MethodType, ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtfast.bench.measure import NotSupportedError
from vtfast.bench.shapes import ModelShape
from vtfast.bench.upstreams.plain_timesformer import PlainAttention, PlainTimeSformer
from vtfast.bench.upstreams.upstream import Upstream, declare_torchvision_operations
from vtfast.checkpoints import timesformer_huggingface, timesformer_lucidrains

# Names of options in vtfast -> in transformers, and in timesformer-pytorch.
_HUGGING_FACE = {
    "embed_dim": "hidden_size", "depth": "num_hidden_layers", "num_heads": "num_attention_heads",
    "num_classes": "num_labels",
}  # fmt: skip
_LUCIDRAINS = {"embed_dim": "dim", "num_heads": "heads", "head_dim": "dim_head"}


def best_upstream() -> Upstream:
    """Transformers' models where it is installed, else those in plain PyTorch: the arithmetic is the same."""
    try:
        _hugging_face()
    except NotSupportedError:
        return PLAIN
    return HUGGING_FACE


def _hugging_face() -> ModuleType:
    declare_torchvision_operations()
    try:
        return importlib.import_module("transformers.models.timesformer.modeling_timesformer")
    except (ImportError, RuntimeError) as error:
        raise NotSupportedError(f"transformers does not import ({error})") from error


def _hugging_face_model(shape: ModelShape) -> nn.Module:
    modeling = _hugging_face()

    class OnClips(modeling.TimesformerForVideoClassification):  # type: ignore[name-defined, misc]
        """Clips (B, C, T, H, W) to logits."""

        def forward(self, clip: Tensor) -> Tensor:
            return super().forward(clip.transpose(1, 2)).logits

    _, _, frames, height, width = shape.clip
    assert height == width
    options: dict[str, Any] = {
        "num_labels": 400,
        **{_HUGGING_FACE[name]: value for name, value in shape.config.items()},
    }
    options["intermediate_size"] = 4 * options.get("hidden_size", 768)
    config = modeling.TimesformerConfig(num_frames=frames, image_size=height, **options)
    torch.manual_seed(0)
    return _with_positions(OnClips(config))


def _hugging_face_sdpa(model: nn.Module) -> nn.Module:
    """What a user would patch: the products and the softmax of its one attention module."""

    def forward(self: Any, hidden_states: Tensor, output_attentions: bool = False) -> tuple[Tensor]:
        q, k, v = self.qkv(hidden_states).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return (F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2),)

    return _patched(model, lambda module: type(module).__name__ == "TimesformerSelfAttention", forward)


def _plain_model(shape: ModelShape) -> nn.Module:
    _, channels, frames, height, width = shape.clip
    assert height == width
    torch.manual_seed(0)
    options: dict[str, Any] = {"num_classes": 400, "in_channels": channels, **shape.config}
    return _with_positions(PlainTimeSformer(num_frames=frames, image_size=height, **options))


def _plain_sdpa(model: nn.Module) -> nn.Module:
    changed = copy.deepcopy(model)
    for module in changed.modules():
        if isinstance(module, PlainAttention):
            module.sdpa = True
    return changed


def _lucidrains_model(shape: ModelShape) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # `is` with a literal
        try:
            package = importlib.import_module("timesformer_pytorch")
        except ImportError as error:
            raise NotSupportedError(f"timesformer-pytorch does not import ({error})") from error

    class OnClips(package.TimeSformer):  # type: ignore[name-defined, misc]
        """Clips (B, C, T, H, W) to logits."""

        def forward(self, clip: Tensor) -> Tensor:
            if clip.dtype == torch.bfloat16:
                raise NotSupportedError("its rotary tables are float32 beside bfloat16 weights")
            return super().forward(clip.transpose(1, 2))

    options = {"dim": 512, "num_classes": 400}
    options |= {_LUCIDRAINS.get(name, name): value for name, value in shape.config.items()}
    torch.manual_seed(0)
    return OnClips(num_frames=shape.clip[2], image_size=shape.clip[3], **options)


def _patched(model: nn.Module, chosen: Callable[[nn.Module], bool], forward: Callable[..., Any]) -> nn.Module:
    changed = copy.deepcopy(model)
    for module in changed.modules():
        if chosen(module):
            module.forward = MethodType(forward, module)  # type: ignore[method-assign]
    return changed


def _with_positions(model: nn.Module) -> nn.Module:
    """Positions, which start at zero, and biases drawn so that they matter."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ("embed" in name and parameter.dim() == 3) or name.endswith("bias"):
                parameter.normal_(std=0.02)
    return model


def _own_names(entries: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    return dict(entries)


def _own_options(shape: ModelShape) -> dict[str, Any]:
    return {"num_frames": shape.clip[2], "image_size": shape.clip[3], "drop_path_rate": 0.0}


HUGGING_FACE = Upstream(
    "transformers",
    _hugging_face_model,
    timesformer_huggingface.convert,
    patched={"SDPA": _hugging_face_sdpa},
    options=_own_options,
)
PLAIN = Upstream("plain PyTorch", _plain_model, _own_names, patched={"SDPA": _plain_sdpa}, options=_own_options)
LUCIDRAINS = Upstream(
    "timesformer-pytorch", _lucidrains_model, timesformer_lucidrains.convert, options=lambda shape: {}
)
