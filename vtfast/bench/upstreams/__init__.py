"""Whole models of others as peers: one file a model family, and which family a model of vtfast belongs to."""

from vtfast.bench.upstreams.mvit import TORCHVISION_MVIT
from vtfast.bench.upstreams.timesformer import LUCIDRAINS, best_upstream
from vtfast.bench.upstreams.uniformer_channels_last import UNIFORMER
from vtfast.bench.upstreams.uniformer_v2 import MMACTION2_UNIFORMER_V2
from vtfast.bench.upstreams.upstream import TORCHVISION, Upstream

__all__ = ["Upstream", "upstream_of"]


def upstream_of(model: str) -> Upstream | None:
    """Whose model the model of this name is compared with; None if no installable package has it."""
    if model == "timesformer_lucidrains":
        return LUCIDRAINS
    if model.startswith("timesformer"):
        return best_upstream()
    if model.startswith("mvit"):
        return None if "maskfeat" in model or "image" in model else TORCHVISION_MVIT
    if model in ("swin3d_t", "swin3d_s", "swin3d_b"):
        return TORCHVISION
    if model.startswith("uniformer_v2"):
        return MMACTION2_UNIFORMER_V2
    return UNIFORMER if model in ("uniformer_s", "uniformer_b") else None
