"""Stochastic depth of Video Swin, and data parallelism."""

from pathlib import Path

import distributed_step
import pytest
import torch
from oracles import small_swin
from target import DEVICE
from torch import nn

CLIP = torch.randn(2, 3, 6, 40, 52, generator=torch.Generator().manual_seed(0)).to(DEVICE)


@pytest.mark.every_device
def test_without_stochastic_depth_training_is_evaluation() -> None:
    model = small_swin(drop_path_rate=0.0)
    assert torch.equal(model.eval()(CLIP), model.train()(CLIP))


@pytest.mark.every_device
def test_stochastic_depth_drops_branches_of_single_samples() -> None:
    model = small_swin(depths=(2,), num_heads=(1,), drop_path_rate=0.5, global_pool="").train()
    model.head, model.norm = nn.Identity(), nn.Identity()
    clips = CLIP[:1].expand(64, -1, -1, -1, -1)
    first = model.stages[0].blocks[0](model.patch_embed(clips))
    block = model.stages[0].blocks[1]
    attention = block.attn(block.norm1(first[:1]))
    outcomes = [
        mid + mlp_scale * block.mlp(block.norm2(mid))
        for mid in (first[:1], first[:1] + 2 * attention)
        for mlp_scale in (0, 2)
    ]
    out = model(clips)
    matches = torch.stack([torch.isclose(out, o, rtol=1e-4, atol=1e-4).flatten(1).all(1) for o in outcomes])
    assert (matches.sum(0) == 1).all()
    # Each of the four outcomes has probability 1/4: less than 3 of 64 happens once in a million.
    assert (matches.sum(1) >= 3).all()


@pytest.mark.slow
def test_two_processes_take_the_step_of_one(tmp_path: Path) -> None:
    alone = distributed_step.step()
    rendezvous = str(tmp_path / "rendezvous")
    torch.multiprocessing.spawn(distributed_step.run, args=(2, rendezvous), nprocs=2)
    for rank in range(2):
        together = torch.load(f"{rendezvous}.{rank}.pth", weights_only=True)
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
