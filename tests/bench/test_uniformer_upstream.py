from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vtfast.bench.measure import Effort, NotSupportedError, run_case
from vtfast.bench.shapes import ModelShape
from vtfast.bench.subjects.models import case_of
from vtfast.bench.subjects.subject import MODES
from vtfast.bench.upstreams.uniformer_channels_last import UNIFORMER, with_channels_last
from vtfast.bench.upstreams.uniformer_v2 import MMACTION2_UNIFORMER_V2
from vtfast.bench.upstreams.upstream import clip_of

SMALL = ModelShape(
    "uniformer_s",
    (1, 3, 4, 64, 64),
    {"depths": (1, 1, 2, 1), "embed_dims": (8, 16, 16, 24), "head_dim": 8, "num_classes": 7},
)
SMALL_V2 = ModelShape(
    "uniformer_v2_b16",
    (1, 3, 4, 48, 48),
    {"embed_dim": 24, "depth": 3, "num_heads": 3, "global_depth": 2, "num_classes": 7},
)


@pytest.fixture(autouse=True)
def mmaction2() -> None:
    try:
        UNIFORMER.make(SMALL)
    except NotSupportedError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("shape", "upstream"), [(SMALL, UNIFORMER), (SMALL_V2, MMACTION2_UNIFORMER_V2)])
def test_all_models_compute_the_same(shape, upstream, mode):
    case = case_of(shape, "float32", mode, ("eager", *upstream.patched, "vtfast"))
    results = {result.way: result for result in run_case(case, Effort(0.0, 1, 1))}
    compared = {"eager", *upstream.patched, "vtfast"}
    assert set(results) == {*compared, "linear layers", "GEMM float32"}
    assert {way for way, result in results.items() if result.agrees} == compared


def test_the_training_step_reaches_the_first_layer():
    model = UNIFORMER.in_mode(UNIFORMER.make(SMALL), training=True)
    assert model.training
    assert not model.backbone.norm.training
    assert model.backbone.blocks1[0].norm1.training
    model(clip_of(SMALL)).square().sum().backward()
    assert model.backbone.patch_embed1.proj.weight.grad.abs().max() > 1e-4
    assert not UNIFORMER.in_mode(model, training=False).training


def test_between_channels_last_convolutions_nothing_is_copied():
    """Every block reads and writes that layout."""
    model, seen = with_channels_last(UNIFORMER.make(SMALL)), []
    for stage in range(1, 5):
        for block in getattr(model.backbone, f"blocks{stage}"):
            block.register_forward_hook(lambda block, args, out: seen.extend([args[0], out]))
    with torch.no_grad():
        model(clip_of(replace(SMALL, clip=(1, 3, 4, 96, 96))))
    assert len(seen) == 10
    assert all(x.is_contiguous(memory_format=torch.channels_last_3d) for x in seen)


def test_the_floor_has_every_linear_layer():
    """Also those that are convolutions there."""
    case = case_of(SMALL, "float32", MODES[0], ("eager", "vtfast"))
    (linears,) = [way for way in case.ways() if way.name == "linear layers"]
    with FlopCounterMode(display=False) as counter:
        linears.run()
    tokens, dims, depths = (512, 128, 32, 8), SMALL.config["embed_dims"], SMALL.config["depths"]
    # Products of C x C for each token: two and the MLP's eight, or four and eight.
    products = sum(n * c * c * d * k for n, c, d, k in zip(tokens, dims, depths, (10, 10, 12, 12), strict=True))
    assert counter.get_total_flops() == 2 * (products + dims[3] * 7)
