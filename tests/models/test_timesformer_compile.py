"""torch.compile and torch.export of TimeSformer."""

from collections.abc import Iterator

import pytest
import torch
from oracles import small_timesformer
from target import DEVICE
from torch import Tensor
from torch._dynamo.testing import CompileCounter

pytestmark = pytest.mark.every_device


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def clip(batch: int, *size: int) -> Tensor:
    return torch.randn(batch, 3, *size, device=DEVICE)


@pytest.mark.requires_native
@pytest.mark.parametrize("attention_type", ["space", "sparse", "axial"])
def test_one_graph_for_many_sizes(attention_type: str) -> None:
    """Sizes other than that of the positions, which is a graph of its own."""
    model, counter = small_timesformer(attention_type=attention_type, depth=1), CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    for sample in (clip(2, 4, 64, 80), clip(3, 6, 96, 64), clip(4, 5, 80, 112)):
        with torch.no_grad():
            torch.testing.assert_close(compiled(sample), model(sample))
    assert counter.frame_count == 1


def test_compiled_gradients() -> None:
    model = small_timesformer(depth=1)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    sample = clip(2, 4, 32, 80)
    weights = torch.randn(2, 7, device=DEVICE)
    expected = torch.autograd.grad((model(sample) * weights).sum(), list(model.parameters()))
    gradients = torch.autograd.grad((compiled(sample) * weights).sum(), list(model.parameters()))
    torch.testing.assert_close(gradients, expected)


@pytest.mark.requires_native
def test_export() -> None:
    model = small_timesformer()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (clip(2, 3, 48, 48),), dynamic_shapes=({0: batch},))
    for samples in (1, 5):
        sample = clip(samples, 3, 48, 48)
        torch.testing.assert_close(program.module()(sample), model(sample))
