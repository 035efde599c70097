import pytest
import torch

from vtfast.bench.measure import Effort, NotSupportedError, run_case
from vtfast.bench.shapes import MVIT_V1_B, MVIT_V2_S, ModelShape
from vtfast.bench.subjects.models import case_of
from vtfast.bench.subjects.subject import MODES
from vtfast.bench.upstreams.mvit import TORCHVISION_MVIT
from vtfast.bench.upstreams.upstream import torchvision_video

CONFIG = {"embed_dim": 16, "depths": (1, 2, 1), "num_classes": 7}
SMALL = [ModelShape(name, (1, 3, 4, 64, 64), CONFIG) for name in ("mvit_v1_b", "mvit_v2_s")]


@pytest.fixture(autouse=True)
def torchvision() -> None:
    try:
        TORCHVISION_MVIT.make(SMALL[0])
    except NotSupportedError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SMALL, ids=lambda shape: shape.model)
def test_both_models_compute_the_same(shape, mode):
    case = case_of(shape, "float32", mode, ("eager", "vtfast"))
    results = {result.way: result for result in run_case(case, Effort(0.0, 1, 1))}
    assert set(results) == {"eager", "vtfast", "linear layers", "GEMM float32"}
    assert {way for way, result in results.items() if result.agrees} == {"eager", "vtfast"}


@pytest.mark.parametrize("shape", [MVIT_V1_B, MVIT_V2_S], ids=lambda shape: shape.model)
def test_the_peer_is_the_published_model(shape):
    published = getattr(torchvision_video(), shape.model)().state_dict()
    made = TORCHVISION_MVIT.make(shape).state_dict()
    assert {name: tensor.shape for name, tensor in made.items()} == {
        name: tensor.shape for name, tensor in published.items()
    }


def test_the_bias_of_keys_is_compared_with_their_weight():
    ours = TORCHVISION_MVIT.ours(SMALL[1])
    gradients = {name: torch.full_like(parameter, 3.0) for name, parameter in ours.named_parameters()}
    compared = TORCHVISION_MVIT.rename(ours)(gradients)
    assert compared["blocks.0.attn.pool_k.norm"].shape == (2, 16)
    assert "blocks.0.attn.pool_k.norm.bias" not in compared
    assert "norm.weight" in compared
    assert sum(x.numel() for x in compared.values()) == sum(x.numel() for x in gradients.values())
