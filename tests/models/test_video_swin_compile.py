"""torch.compile and torch.export."""

from collections.abc import Iterator

import pytest
import torch
from oracles import small_swin
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
def test_one_graph_for_many_sizes() -> None:
    """Sizes that no window outgrows: where a grid fits its window, the graph is another one."""
    model, counter = small_swin(depths=(2, 1), num_heads=(1, 2)), CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    for sample in (clip(2, 10, 48, 56), clip(3, 12, 64, 40), clip(4, 14, 40, 72)):
        with torch.no_grad():
            torch.testing.assert_close(compiled(sample), model(sample))
    assert counter.frame_count == 1


def test_compiled_gradients() -> None:
    model = small_swin(depths=(1,), num_heads=(2,))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    sample = clip(2, 10, 32, 40)
    weights = torch.randn(2, 7, device=DEVICE)
    expected = torch.autograd.grad((model(sample) * weights).sum(), list(model.parameters()))
    gradients = torch.autograd.grad((compiled(sample) * weights).sum(), list(model.parameters()))
    torch.testing.assert_close(gradients, expected)


@pytest.mark.requires_native
def test_export() -> None:
    model = small_swin()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (clip(2, 6, 40, 52),), dynamic_shapes=({0: batch},))
    for samples in (1, 5):
        sample = clip(samples, 6, 40, 52)
        torch.testing.assert_close(program.module()(sample), model(sample))
