"""Stochastic depth and dropout of MViT."""

from collections.abc import Callable

import pytest
import torch
from oracles import small_mvit, small_mvit_v2, torchvision_mvit
from target import DEVICE
from torch import Tensor, nn

from vtfast.checkpoints import load_checkpoint
from vtfast.models import MViT

CLIP = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0)).to(DEVICE)
BUILDS = pytest.mark.parametrize("build", [small_mvit, small_mvit_v2], ids=["v1", "v2"])


@pytest.mark.every_device
@BUILDS
def test_without_stochastic_depth_training_is_evaluation(build: Callable[..., MViT]) -> None:
    model = build(drop_path_rate=0.0, drop_rate=0.0)
    torch.testing.assert_close(model.eval()(CLIP), model.train()(CLIP), rtol=1e-6, atol=1e-6)


@BUILDS
def test_stochastic_depth_drops_what_torchvision_drops(build: Callable[..., MViT]) -> None:
    """Whole branches of single clips, both with the same draws; the residual connections stay."""
    keep, draws = 0.6, list[Tensor]()
    model = build(drop_path_rate=1 - keep, drop_rate=0.0).double()
    oracle = torchvision_mvit(model).double()
    load_checkpoint(model, oracle.state_dict())

    def draw(x: Tensor) -> Tensor:  # [B, ...]
        draws.append(torch.rand(x.shape[0]).lt(keep).to(x.dtype).div(keep))
        return x * draws[-1].view(-1, 1, 1)

    for block in oracle.blocks[1:]:
        block.stochastic_depth = nn.Module()
        block.stochastic_depth.forward = draw
    for rate, block in zip((0.0, *[1 - keep] * 3), model.blocks, strict=True):
        block.drop_path.rate = rate
    clips = torch.randn(4, 3, 4, 32, 32, dtype=torch.float64)
    expected = oracle(clips)
    assert len(draws) == 6
    recorded = iter(draws)
    for block in model.blocks:
        block.drop_path.sample_scale = lambda x: next(recorded).view(-1, 1, 1)
    torch.testing.assert_close(model.train()(clips), expected)
    assert next(recorded, None) is None


def test_dropout_acts_in_training_only() -> None:
    model = small_mvit(proj_drop_rate=0.5, drop_rate=0.5)
    assert torch.equal(model(CLIP), model(CLIP))
    entered: list[Tensor] = []
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    model.pos_drop.train()
    model(CLIP)
    assert 0.4 < (entered[0] == 0).float().mean() < 0.6, "dropped after the positions"
    model.pos_drop.eval()
    for part in (model.head_drop, model.blocks[0].attn, model.blocks[-1].mlp):
        part.train()
        assert not torch.equal(model(CLIP), model(CLIP))
        part.eval()
    assert torch.equal(model(CLIP), model(CLIP))
