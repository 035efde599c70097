"""Stochastic depth and dropout of TimeSformer."""

import pytest
import torch
from oracles import huggingface_timesformer, small_timesformer
from target import DEVICE
from torch import Tensor, nn

from vtfast import create_model
from vtfast.checkpoints import load_checkpoint

CLIP = torch.randn(2, 3, 3, 48, 48, generator=torch.Generator().manual_seed(0)).to(DEVICE)
GRID = (3, 3, 3)


@pytest.mark.every_device
@pytest.mark.parametrize("attention_type", ["divided", "space", "sparse"])
def test_without_stochastic_depth_training_is_evaluation(attention_type: str) -> None:
    model = small_timesformer(attention_type=attention_type, drop_path_rate=0.0)
    torch.testing.assert_close(model.eval()(CLIP), model.train()(CLIP), rtol=1e-6, atol=1e-6)


def test_stochastic_depth_rises_to_the_published_rate() -> None:
    with torch.device("meta"):
        blocks = create_model("timesformer_base").blocks
    rates = [block.drop_path.rate for block in blocks]
    assert rates == pytest.approx([0.1 * i / 11 for i in range(12)])
    assert all(step.drop_path.rate == block.drop_path.rate for block in blocks for step in block.steps.values())


def test_a_dropped_branch_leaves_the_bias_of_its_last_layer() -> None:
    """Only where a linear layer follows the branch, and in time not for cls."""
    block = small_timesformer(attention_type="divided", drop_path_rate=1.0).blocks[1].train()
    x = torch.randn(2, 1 + 27, 48)
    expected = x.clone()
    expected[:, 1:] += block.steps["over_time"].fc.bias
    torch.testing.assert_close(block(x, GRID), expected)
    block = small_timesformer(attention_type="sparse", drop_path_rate=1.0).blocks[1].train()
    torch.testing.assert_close(block(x, GRID), x + block.steps["over_local"].fc.bias)


@pytest.mark.parametrize("attention_type", ["divided", "joint"])
def test_stochastic_depth_drops_what_transformers_drops(attention_type: str) -> None:
    """Both with the same draws: a place from time, a frame from space and from the mean of cls, a clip elsewhere."""
    keep, draws = 0.6, list[Tensor]()
    oracle = huggingface_timesformer(attention_type).double()
    model = small_timesformer(attention_type=attention_type, drop_path_rate=1 - keep).double()
    load_checkpoint(model, oracle.state_dict())

    def draw(x: Tensor) -> Tensor:  # [B, ...] to [B, 1, ...]
        draws.append(torch.rand(x.shape[0]).lt(keep).to(x.dtype).div(keep))
        return draws[-1].view(-1, *(1,) * (x.dim() - 1))

    layer = oracle.timesformer.encoder.layer[1]
    layer.drop_path = nn.Module()
    layer.drop_path.forward = lambda x: x * draw(x)
    model.train()
    clips = torch.randn(4, 3, 3, 48, 48, dtype=torch.float64)
    expected = oracle(clips.transpose(1, 2)).logits
    sizes = [4 * 9, 4 * 3, 4] if attention_type == "divided" else [4, 4]
    assert [len(scale) for scale in draws] == sizes
    assert all(0 < scale.sum() < len(scale) / keep for scale in draws), "nothing dropped, or everything"
    recorded = iter(draws)
    steps = [*model.blocks[1].steps.values(), model.blocks[1]]
    for module in steps:
        module.drop_path.sample_scale = lambda x: next(recorded).view(-1, *(1,) * (x.dim() - 1))
    logits = model(clips)
    assert next(recorded, None) is None
    torch.testing.assert_close(logits, expected)


def test_all_frames_may_be_dropped() -> None:
    block = small_timesformer(drop_path_rate=1.0).blocks[1].train()
    x = torch.randn(2, 1 + 27, 48)
    assert torch.equal(block.steps["over_space"](x, GRID), x)


def test_dropout_of_positions_and_head_acts_in_training_only() -> None:
    model = small_timesformer(drop_rate=0.5)
    assert torch.equal(model(CLIP), model(CLIP))
    entered: list[Tensor] = []
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    model.pos_drop.train()
    nn.init.zeros_(model.time_embed)
    model(CLIP)
    assert 0.4 < (entered[0][:, 0] == 0).float().mean() < 0.6, "cls has a place only"
    assert 0.65 < (entered[0][:, 1:] == 0).float().mean() < 0.85, "dropped after either position"
    assert not torch.equal(entered[0][0, 0] == 0, entered[0][1, 0] == 0), "each clip on its own"
    model.pos_drop.eval()
    model.head_drop.train()
    assert not torch.equal(model(CLIP), model(CLIP))
