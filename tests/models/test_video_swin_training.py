"""Stochastic depth, activation checkpointing, mixed precision and data parallelism."""

from pathlib import Path

import distributed_step
import pytest
import torch
from oracles import small_swin
from target import DEVICE
from torch import Tensor, nn

from vtfast import use_backend

CLIP = torch.randn(2, 3, 6, 40, 52, generator=torch.Generator().manual_seed(0)).to(DEVICE)


def parameter_gradients(model: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    model.zero_grad()
    model(CLIP.to(next(model.parameters()).dtype)).square().sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def flat(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.double().flatten() for tensor in tensors.values()])


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


@pytest.mark.every_device
@pytest.mark.parametrize("drop_path_rate", [0.0, 0.5])
def test_activation_checkpointing_keeps_the_gradients(drop_path_rate: float) -> None:
    model = small_swin(drop_path_rate=drop_path_rate, proj_drop_rate=drop_path_rate / 5).train()
    expected = parameter_gradients(model)
    calls = []
    model.stages[0].blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    model.set_grad_checkpointing()
    gradients = parameter_gradients(model)
    assert len(calls) == 2, "the block must run again in the backward"
    torch.testing.assert_close(gradients, expected, rtol=0, atol=0)
    model.set_grad_checkpointing(False)
    parameter_gradients(model)
    assert len(calls) == 3


@pytest.mark.every_device
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_weights(dtype: torch.dtype) -> None:
    """The error against float64 is that of the same computation in plain PyTorch, give or take."""
    model, clip = small_swin().to(dtype), CLIP.to(dtype)
    with torch.inference_mode():
        logits = model(clip)
        with use_backend("reference"):
            plain, exact = model(clip), small_swin().double()(CLIP.double())
    assert logits.dtype == dtype
    assert (logits - exact).norm() <= 2 * (plain - exact).norm()


@pytest.mark.every_device
@pytest.mark.requires_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gradients_are_as_good_as_those_of_plain_pytorch(dtype: torch.dtype) -> None:
    model, exact_model = small_swin().to(dtype), small_swin().double()
    gradients = flat(parameter_gradients(model))
    with use_backend("reference"):
        plain, exact = flat(parameter_gradients(model)), flat(parameter_gradients(exact_model))
    assert (gradients - exact).norm() <= 3 * (plain - exact).norm()


@pytest.mark.every_device
def test_autocast_runs_the_products_in_bfloat16() -> None:
    model = small_swin()
    seen: list[torch.dtype] = []
    for stage in model.stages:
        stage.blocks[0].attn.proj.register_forward_hook(
            lambda _, inputs, out: seen.extend([inputs[0].dtype, out.dtype])
        )
    with torch.autocast(DEVICE.type, torch.bfloat16):
        logits = model(CLIP)
        logits.float().square().sum().backward()
    assert set(seen) == {torch.bfloat16}
    assert logits.dtype == torch.bfloat16
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())
    exact = small_swin()(CLIP)
    assert (logits - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.slow
def test_two_processes_take_the_step_of_one(tmp_path: Path) -> None:
    alone = distributed_step.step()
    rendezvous = str(tmp_path / "rendezvous")
    torch.multiprocessing.spawn(distributed_step.run, args=(2, rendezvous), nprocs=2)
    for rank in range(2):
        together = torch.load(f"{rendezvous}.{rank}.pth", weights_only=True)
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
