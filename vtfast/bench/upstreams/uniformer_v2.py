"""UniFormerV2 as a peer: mmaction2's."""

from typing import Any

import torch
from torch import Tensor, nn

import vtfast
from vtfast.bench.shapes import ModelShape
from vtfast.bench.upstreams.mmaction2_files import uniformer_v2_class
from vtfast.bench.upstreams.upstream import Upstream
from vtfast.checkpoints import uniformer_v2_mmaction2
from vtfast.models import UniFormerV2


class _Recogniser(nn.Module):
    """A backbone of mmaction2 with its head, without dropout: clips (B, C, T, H, W) to logits."""

    def __init__(self, backbone: nn.Module, channels: int, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.cls_head = nn.ModuleDict({"fc_cls": nn.Linear(channels, num_classes)})

    def forward(self, clip: Tensor) -> Tensor:
        logits: Tensor = self.cls_head["fc_cls"](self.backbone(clip))
        return logits


def mmaction2_twin(model: UniFormerV2, num_frames: int) -> nn.Module:
    """mmaction2's model of the architecture of `model` for so many frames, without a head, with weights of its own.

    Raises:
        NotSupportedError: mmaction2 is not installed.
    """
    dim, depth, temporal = model.num_features, len(model.blocks), model.design == "temporal"
    attention, last = model.blocks[0].attn, model.blocks[-1]
    twin: nn.Module = uniformer_v2_class()(
        input_resolution=model.places[0] * model.patch_size[0],
        patch_size=model.patch_size[0],
        width=dim,
        layers=depth,
        heads=attention.num_heads,
        backbone_drop_path_rate=last.drop_path.rate,
        t_size=num_frames,
        temporal_downsample=temporal,
        dw_reduction=1.5,
        no_lmhra=not temporal,
        double_lmhra=True,
        return_list=list(range(model.first_global, depth)),
        n_layers=depth - model.first_global,
        n_dim=dim,
        n_head=attention.num_heads,
        drop_path_rate=model.global_blocks[-1].drop_path.rate,
        mlp_dropout=[block.mlp.dropout for block in model.global_blocks],
        clip_pretrained=False,
    )
    return twin


def _mmaction2_uniformer_v2(shape: ModelShape) -> nn.Module:
    """What starts at zero is drawn, or the global blocks would have no part in the logits."""
    with torch.device("meta"):
        ours: UniFormerV2 = vtfast.create_model(shape.model, **_options(shape), **shape.config)
    torch.manual_seed(0)
    model = _Recogniser(mmaction2_twin(ours, shape.clip[2]), ours.num_features, ours.num_classes)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    return model


def _options(shape: ModelShape) -> dict[str, Any]:
    """Without anything random in training, and for the size of the clip, which is the only one mmaction2's takes."""
    return {
        "image_size": shape.clip[3:],
        "drop_rate": 0.0,
        "mlp_drop_rate": 0.0,
        "drop_path_rate": 0.0,
        "global_drop_path_rate": 0.0,
    }


MMACTION2_UNIFORMER_V2 = Upstream(
    "mmaction2",
    _mmaction2_uniformer_v2,
    uniformer_v2_mmaction2.convert,
    hides_linear_layers=True,
    options=_options,
)
