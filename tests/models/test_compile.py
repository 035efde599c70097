"""torch.compile and torch.export."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from oracles import small_mvit, small_mvit_v2, small_swin, small_timesformer
from target import DEVICE
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from uniformer_oracles import small_uniformer, small_uniformer_light
from uniformer_v2_oracles import small_uniformer_v2

pytestmark = pytest.mark.every_device

SHALLOW_SWIN = partial(small_swin, depths=(2, 1), num_heads=(1, 2))
# That no window outgrows: where a grid fits its window, the graph is another one.
SWIN_SIZES = ((2, 10, 48, 56), (3, 12, 64, 40), (4, 14, 40, 72))
SHALLOW_TIMESFORMER = partial(small_timesformer, depth=1)
# Other than that of the positions, which is a graph of its own.
TIMESFORMER_SIZES = ((2, 4, 64, 80), (3, 6, 96, 64), (4, 5, 80, 112))
SHALLOW_MVIT = partial(small_mvit, depths=(1, 1))
SHALLOW_MVIT_V2 = partial(small_mvit_v2, depths=(1, 1))
MVIT_SIZES = ((2, 10, 48, 56), (3, 12, 64, 40), (4, 14, 40, 72))
SHALLOW_UNIFORMER = partial(small_uniformer, depths=(1, 1, 1, 1))
SHALLOW_UNIFORMER_V2 = partial(small_uniformer_v2, depth=1, global_depth=1)
UNIFORMER_SIZES = ((2, 10, 96, 128), (3, 12, 128, 64), (4, 14, 70, 100))


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def clip(batch: int, *size: int) -> Tensor:
    return torch.randn(batch, 3, *size, device=DEVICE)


@pytest.mark.requires_native
@pytest.mark.parametrize(
    ("build", "sizes"),
    [
        pytest.param(SHALLOW_SWIN, SWIN_SIZES, id="swin"),
        *(
            pytest.param(
                partial(SHALLOW_TIMESFORMER, attention_type=attention_type), TIMESFORMER_SIZES, id=attention_type
            )
            for attention_type in ("space", "sparse", "axial")
        ),
        pytest.param(SHALLOW_MVIT, MVIT_SIZES, id="mvit"),
        pytest.param(SHALLOW_MVIT_V2, MVIT_SIZES, id="mvit-v2"),
        pytest.param(SHALLOW_UNIFORMER, UNIFORMER_SIZES, id="uniformer"),
        pytest.param(SHALLOW_UNIFORMER_V2, TIMESFORMER_SIZES, id="uniformer-v2"),
    ],
)
def test_one_graph_for_many_sizes(build: Callable[[], nn.Module], sizes: tuple[tuple[int, ...], ...]) -> None:
    model, counter = build(), CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    for size in sizes:
        sample = clip(*size)
        with torch.no_grad():
            torch.testing.assert_close(compiled(sample), model(sample))
    assert counter.frame_count == 1


@pytest.mark.parametrize(
    ("build", "size"),
    [
        pytest.param(partial(small_swin, depths=(1,), num_heads=(2,)), (10, 32, 40), id="swin"),
        pytest.param(SHALLOW_TIMESFORMER, (4, 32, 80), id="timesformer"),
        pytest.param(SHALLOW_MVIT_V2, (6, 24, 40), id="mvit"),
    ],
)
def test_compiled_gradients(build: Callable[[], nn.Module], size: tuple[int, ...]) -> None:
    model = build()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    sample = clip(2, *size)
    weights = torch.randn(2, 7, device=DEVICE)
    expected = torch.autograd.grad((model(sample) * weights).sum(), list(model.parameters()))
    gradients = torch.autograd.grad((compiled(sample) * weights).sum(), list(model.parameters()))
    torch.testing.assert_close(gradients, expected)


@pytest.mark.requires_native
@pytest.mark.parametrize(
    ("build", "size"),
    [
        pytest.param(small_swin, (6, 40, 52), id="swin"),
        pytest.param(small_timesformer, (3, 48, 48), id="timesformer"),
        pytest.param(small_mvit_v2, (6, 24, 40), id="mvit"),
        pytest.param(small_uniformer_light, (4, 40, 64), id="uniformer-light"),
        pytest.param(partial(SHALLOW_UNIFORMER_V2, design="temporal"), (4, 48, 48), id="uniformer-v2"),
    ],
)
def test_export(build: Callable[[], nn.Module], size: tuple[int, ...]) -> None:
    model = build()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (clip(2, *size),), dynamic_shapes=({0: batch},))
    for samples in (1, 5):
        sample = clip(samples, *size)
        torch.testing.assert_close(program.module()(sample), model(sample))
