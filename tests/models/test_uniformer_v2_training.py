"""Stochastic depth, dropout and activation checkpointing of UniFormerV2."""

import pytest
import torch
from target import DEVICE
from torch import Tensor, nn
from uniformer_v2_oracles import SIZE, small_uniformer_v2

CLIP = torch.randn(3, 3, *SIZE, generator=torch.Generator().manual_seed(0)).to(DEVICE)
GRID = (4, 3, 3)


def dropped(out: Tensor, x: Tensor) -> Tensor:
    """Where a branch was left out: [B, T, N]."""
    return (out - x).abs().amax(-1) < 1e-6


@pytest.mark.parametrize("mode", ["upstream", "per_sample"])
def test_what_stochastic_depth_drops(mode: str) -> None:
    """As published whole positions in attention and MLP; else whole clips, as in local relations either way."""
    model = small_uniformer_v2(design="temporal", drop_path_rate=0.5, drop_path_mode=mode).train()
    block, x = model.blocks[-1], torch.randn(20, 4, 1 + 9, 24)
    nn.init.zeros_(block.mlp.fc2.weight)
    for relation in (block.lmhra1, block.lmhra2):
        nn.init.zeros_(relation.expand.weight)
        nn.init.zeros_(relation.expand.bias)
    out = dropped(block(x, GRID), x)
    both = out if mode == "upstream" else out.transpose(0, 2)
    shared = both.flatten(0, 1).float().mean(0)  # by the bias of the MLP and by attention: both must be dropped
    assert set(shared.unique().tolist()) == {0.0, 1.0}
    nn.init.ones_(block.lmhra1.expand.bias)
    local = dropped(block._relate(x, GRID, block.lmhra1), x)
    assert local[:, :, 0].all(), "cls takes no part"
    assert set(local[:, :, 1:].flatten(1).float().mean(1).tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("mode", ["upstream", "per_sample"])
def test_what_stochastic_depth_drops_of_a_global_block(mode: str) -> None:
    block = small_uniformer_v2(global_drop_path_rate=0.5, drop_path_mode=mode).global_blocks[-1].train()
    query, x = torch.zeros(40, 1, 24), torch.randn(40, 4, 1 + 9, 24)
    nn.init.zeros_(block.mlp.fc2.weight)
    nn.init.zeros_(block.mlp.fc2.bias)
    shares = [dropped(block(query, x, GRID), query).float().mean().item() for _ in range(12)]
    if mode == "upstream":
        assert set(shares) == {0.0, 1.0}
    else:
        assert all(0.1 < share < 0.9 for share in shares)


def test_dropout_between_the_layers_of_global_mlps_and_before_the_head() -> None:
    model = small_uniformer_v2(mlp_drop_rate=0.5).eval()
    block = model.global_blocks[0]
    block.mlp.train()
    x = torch.randn(500, 1, 24)
    nn.init.eye_(block.mlp.fc2.weight)
    nn.init.zeros_(block.mlp.fc2.bias)
    out, kept = block.mlp(x), block.mlp.eval()(x)
    zero = out == 0
    assert 0.45 < zero.float().mean() < 0.55
    torch.testing.assert_close(out[~zero], 2 * kept[~zero])
    assert torch.equal(model(CLIP), model(CLIP))
    model.head_drop.train()
    assert not torch.equal(model(CLIP), model(CLIP))
    assert all(module.mlp.dropout == 0.0 for module in model.blocks)


def test_activation_checkpointing_keeps_gradients_and_statistics() -> None:
    config = {"design": "temporal", "drop_path_rate": 0.3, "global_drop_path_rate": 0.3}
    results = []
    for recompute in (False, True):
        model, calls = small_uniformer_v2(**config).train(), []
        model.set_grad_checkpointing(recompute)
        for block in (model.blocks[0], model.global_blocks[1]):
            block.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        torch.manual_seed(0)
        model(CLIP).square().sum().backward()
        assert len(calls) == (4 if recompute else 2)
        results.append([{n: p.grad for n, p in model.named_parameters()}, dict(model.named_buffers())])
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)
