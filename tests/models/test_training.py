"""Activation checkpointing and mixed precision."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from oracles import small_mvit, small_mvit_v2, small_swin, small_timesformer
from target import DEVICE
from torch import Tensor, nn
from uniformer_oracles import small_uniformer
from uniformer_v2_oracles import SIZE, small_uniformer_v2

from vtfast import use_backend


@dataclass(frozen=True)
class Family:
    """A small model, the size of a clip for it, and where its first block is."""

    build: Callable[..., Any]
    size: tuple[int, int, int]
    block: str

    def clip(self) -> Tensor:
        return torch.randn(2, 3, *self.size, generator=torch.Generator().manual_seed(0)).to(DEVICE)


def timesformer(attention_type: str) -> Family:
    return Family(partial(small_timesformer, attention_type=attention_type), (3, 48, 48), "blocks.0")


UNIFORMER_V2 = Family(
    partial(small_uniformer_v2, design="temporal", drop_rate=0.0, mlp_drop_rate=0.0), SIZE, "blocks.0"
)
UNIFORMER = Family(small_uniformer, (4, 64, 64), "blocks1.0")
SWIN = Family(small_swin, (6, 40, 52), "stages.0.blocks.0")
MVIT, MVIT_V2 = (
    Family(partial(build, drop_rate=0.0), (4, 32, 32), "blocks.0") for build in (small_mvit, small_mvit_v2)
)
DIVIDED, SPACE, SPARSE, AXIAL = map(timesformer, ("divided", "space", "sparse", "axial"))


def parameter_gradients(model: nn.Module, clip: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model.zero_grad()
    model(clip.to(next(model.parameters()).dtype)).square().sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def flat(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.double().flatten() for tensor in tensors.values()])


@pytest.mark.every_device
@pytest.mark.parametrize(
    ("family", "drop_path_rate"),
    [
        (SWIN, 0.0),
        (SWIN, 0.5),
        (DIVIDED, 0.0),
        (DIVIDED, 0.5),
        (AXIAL, 0.5),
        (MVIT_V2, 0.0),
        (MVIT_V2, 0.5),
        (UNIFORMER, 0.5),
    ],
    ids=["swin-0", "swin-0.5", "divided-0", "divided-0.5", "axial-0.5", "mvit-0", "mvit-0.5", "uniformer-0.5"],
)
def test_activation_checkpointing_keeps_the_gradients(family: Family, drop_path_rate: float) -> None:
    model, clip = family.build(drop_path_rate=drop_path_rate, proj_drop_rate=drop_path_rate / 5).train(), family.clip()
    expected = parameter_gradients(model, clip)
    calls = []
    model.get_submodule(family.block).register_forward_pre_hook(lambda *_: calls.append(1))
    model.set_grad_checkpointing()
    gradients = parameter_gradients(model, clip)
    assert len(calls) == 2, "the block must run again in the backward"
    torch.testing.assert_close(gradients, expected, rtol=0, atol=0)
    model.set_grad_checkpointing(False)
    parameter_gradients(model, clip)
    assert len(calls) == 3


@pytest.mark.every_device
@pytest.mark.parametrize(
    ("family", "dtype"),
    [
        pytest.param(SWIN, torch.bfloat16, id="swin-bfloat16"),
        pytest.param(SWIN, torch.float16, id="swin-float16"),
        pytest.param(DIVIDED, torch.bfloat16, id="divided-bfloat16"),
        pytest.param(DIVIDED, torch.float16, id="divided-float16"),
        pytest.param(SPACE, torch.bfloat16, id="space-bfloat16"),
        pytest.param(SPARSE, torch.bfloat16, id="sparse-bfloat16"),
        pytest.param(MVIT, torch.bfloat16, id="mvit-bfloat16"),
        pytest.param(MVIT_V2, torch.bfloat16, id="mvit-v2-bfloat16"),
        pytest.param(MVIT_V2, torch.float16, id="mvit-v2-float16"),
        pytest.param(UNIFORMER, torch.bfloat16, id="uniformer-bfloat16"),
        pytest.param(UNIFORMER_V2, torch.bfloat16, id="uniformer-v2-bfloat16"),
        pytest.param(UNIFORMER_V2, torch.float16, id="uniformer-v2-float16"),
    ],
)
def test_low_precision_weights(family: Family, dtype: torch.dtype) -> None:
    """The error against float64 is that of the same computation in plain PyTorch, give or take."""
    model, clip = family.build().to(dtype), family.clip().to(dtype)
    with torch.inference_mode():
        logits = model(clip)
        with use_backend("reference"):
            plain, exact = model(clip), family.build().double()(clip.double())
    assert logits.dtype == dtype
    assert (logits - exact).norm() <= 2 * (plain - exact).norm()


@pytest.mark.every_device
@pytest.mark.requires_native
@pytest.mark.parametrize(
    "family",
    [SWIN, DIVIDED, MVIT, MVIT_V2, UNIFORMER, UNIFORMER_V2],
    ids=["swin", "divided", "mvit", "mvit-v2", "uniformer", "uniformer-v2"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gradients_are_as_good_as_those_of_plain_pytorch(family: Family, dtype: torch.dtype) -> None:
    model, exact_model, clip = family.build().to(dtype), family.build().double(), family.clip()
    gradients = flat(parameter_gradients(model, clip))
    with use_backend("reference"):
        plain, exact = flat(parameter_gradients(model, clip)), flat(parameter_gradients(exact_model, clip))
    assert (gradients - exact).norm() <= 3 * (plain - exact).norm()


@pytest.mark.every_device
@pytest.mark.parametrize(
    ("family", "training"),
    [
        (SWIN, False),
        (DIVIDED, False),
        (DIVIDED, True),
        (MVIT, False),
        (MVIT_V2, True),
        (UNIFORMER, False),
        (UNIFORMER_V2, False),
    ],
    ids=[
        "swin-evaluation",
        "divided-evaluation",
        "divided-training",
        "mvit-evaluation",
        "mvit-v2-training",
        "uniformer",
        "uniformer-v2",
    ],
)
def test_autocast_runs_the_products_in_bfloat16(family: Family, training: bool) -> None:
    model, clip = family.build(drop_path_rate=0.2 * training).train(training), family.clip()
    seen: list[torch.dtype] = []
    for name, module in model.named_modules():
        if name.endswith("attn.proj"):
            module.register_forward_hook(lambda _, inputs, out: seen.extend([inputs[0].dtype, out.dtype]))
    with torch.autocast(DEVICE.type, torch.bfloat16):
        logits = model(clip)
        logits.float().square().sum().backward()
    assert set(seen) == {torch.bfloat16}
    assert logits.dtype == torch.bfloat16
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())
    if not training:
        exact = family.build()(clip)
        assert (logits - exact).abs().max() < 0.05 * exact.abs().max()
