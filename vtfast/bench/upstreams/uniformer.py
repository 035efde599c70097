"""UniFormers as peers: mmaction2's."""

from typing import Any

import torch
from torch import Tensor, nn

import vtfast
from vtfast.bench.shapes import ModelShape
from vtfast.bench.upstreams.mmaction2_files import uniformer_class
from vtfast.bench.upstreams.upstream import Upstream
from vtfast.checkpoints import uniformer_mmaction2
from vtfast.models import UniFormer


class _Recogniser(nn.Module):
    """A backbone of mmaction2 with the head of the authors' code: clips (B, C, T, H, W) to logits."""

    def __init__(self, backbone: nn.Module, channels: int, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.cls_head = nn.ModuleDict({"fc_cls": nn.Linear(channels, num_classes)})

    def forward(self, clip: Tensor) -> Tensor:
        logits: Tensor = self.cls_head["fc_cls"](self.backbone(clip).mean(dim=(2, 3, 4)))
        return logits


def mmaction2_twin(model: UniFormer) -> nn.Module:
    """mmaction2's model of the architecture of `model`, with weights of its own and no stochastic depth.

    The norms of its blocks with attention have an eps of 1e-5, and of 1e-6 here, as in the code that the published
    weights were trained with.

    Raises:
        NotSupportedError: mmaction2 is not installed.
    """
    stages: list[Any] = [getattr(model, f"blocks{stage}") for stage in range(1, 5)]
    attention = model.blocks3[0].attn
    first = stages[0][0]
    backbone = uniformer_class()(
        depth=[len(blocks) for blocks in stages],
        in_chans=model.in_channels,
        embed_dim=[info.channels for info in model.stage_info],
        head_dim=attention.qkv.in_features // attention.num_heads,
        mlp_ratio=first.mlp.fc1.out_features / first.mlp.fc1.in_features,
        qkv_bias=attention.qkv.bias is not None,
        pretrained2d=False,
    )
    for name, module in backbone.named_modules():
        if isinstance(module, nn.LayerNorm) and name.startswith("blocks"):
            module.eps = 1e-6
    return _Recogniser(backbone, model.num_features, model.num_classes)


def _mmaction2_uniformer(shape: ModelShape) -> nn.Module:
    with torch.device("meta"):
        ours: UniFormer = vtfast.create_model(shape.model, **shape.config)
    torch.manual_seed(0)
    return mmaction2_twin(ours)


MMACTION2_UNIFORMER = Upstream("mmaction2", _mmaction2_uniformer, uniformer_mmaction2.convert)
