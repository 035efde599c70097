"""What only a GPU has: streams, graphs, other devices, memory of its own, and room for more than 2^31 elements."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from attention_check import Problem, check, evaluate, every_dtype, make_problem, native
from target import DEVICE
from torch import Tensor

from vtfast import _backend, ops, reference, use_backend

pytestmark = [pytest.mark.requires_native, pytest.mark.requires_cuda, pytest.mark.every_device]

MIB = 2**20
SECOND = 2_000_000_000  # cycles of a GPU, more or less


@pytest.fixture(params=["global", "mean"])
def problem(request: pytest.FixtureRequest, dtype: torch.dtype) -> Problem:
    """Windows, padding, table, mask and prefix: all that a forward and a backward may launch."""
    key_mask = torch.rand(2, 3 * 9 * 10) > 0.3
    settings = {"shift": (1, 2, 2), "num_prefix": 2, "prefix_queries": request.param, "key_mask": key_mask}
    return make_problem((3, 9, 10), (2, 4, 4), dtype=dtype, head_dim=32, **settings)


def floats(problem: Problem) -> list[Tensor]:
    return [*problem.leaves().values(), problem.grad_out]


@every_dtype
def test_a_captured_step_replays_on_new_data(problem: Problem) -> None:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        evaluate(native, problem)  # what is loaded once cannot be captured
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = evaluate(native, problem)
    for _ in range(2):
        for tensor in floats(problem):
            tensor.normal_()
        problem.key_mask.copy_(torch.rand(problem.key_mask.shape) > 0.5)
        graph.replay()
        torch.testing.assert_close(captured, evaluate(native, problem), rtol=0, atol=0)


@every_dtype
def test_work_is_queued_on_the_current_stream(problem: Problem) -> None:
    """A kernel on another stream would not wait, and read the NaN that the inputs are at first."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        expected = evaluate(native, problem)
        evaluate(native, problem)  # leaves memory to the next call, which then allocates none and so cannot wait
    torch.cuda.synchronize()
    values = [tensor.clone() for tensor in floats(problem)]
    for tensor in floats(problem):
        tensor.fill_(float("nan"))
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(SECOND // 10)
        for tensor, value in zip(floats(problem), values, strict=True):
            tensor.copy_(value)
        results = evaluate(native, problem)
    torch.cuda.synchronize()
    torch.testing.assert_close(results, expected, rtol=0, atol=0)


@contextmanager
def waiting_forbidden() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@every_dtype
def test_nothing_waits_for_the_gpu(problem: Problem) -> None:
    evaluate(native, problem)  # loads kernels and allocates, which may wait
    torch.cuda.synchronize()
    torch.cuda._sleep(SECOND)
    awake = torch.cuda.Event()
    awake.record()
    with waiting_forbidden():
        evaluate(native, problem)
    assert not awake.query()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@every_dtype
def test_another_device_than_the_current_one(problem: Problem) -> None:
    other = torch.device("cuda", 1)
    moved = replace(problem, **{
        name: getattr(problem, name).to(other) for name in ("qkv", "bias_table", "pad_qkv", "key_mask", "grad_out")
    })  # fmt: skip
    check(moved)
    assert {result.device for result in evaluate(native, moved).values()} == {other}
    assert torch.cuda.current_device() == 0


def long_clip(frames: int, height: int, width: int) -> Problem:
    return Problem(
        qkv=torch.randn(1, frames, height, width, 3 * 96, dtype=torch.bfloat16, device=DEVICE),
        bias_table=torch.randn(15 * 13 * 13, 3, device=DEVICE),
        pad_qkv=None,
        key_mask=None,
        settings={"grid": (frames, height, width), "block": (8, 7, 7), "shift": (0, 3, 3), "num_heads": 3},
        grad_out=torch.randn(1, frames, height, width, 96, dtype=torch.bfloat16, device=DEVICE),
    )


def last_window(problem: Problem) -> Problem:
    """The last eight frames, which attend to no others."""
    grid = (8, *problem.settings["grid"][1:])
    return replace(
        problem, qkv=problem.qkv[:, -8:], grad_out=problem.grad_out[:, -8:], settings=problem.settings | {"grid": grid}
    )


def test_more_elements_than_32_bits_can_count() -> None:
    torch.cuda.empty_cache()
    if torch.cuda.mem_get_info()[0] < 24 * 1024 * MIB:
        pytest.skip("needs 24 GiB of free GPU memory")
    problem = long_clip(608, 112, 112)
    assert problem.qkv.numel() > 2**31
    last = last_window(problem)
    results, expected = evaluate(native, problem), evaluate(native, last)
    assert torch.equal(results["out"][:, -8:], expected["out"])
    assert torch.equal(results["d_qkv"][:, -8:], expected["d_qkv"])
    del results
    check(last)


def extra_memory(problem: Problem) -> float:
    """MiB by which the peak of a training step exceeds inputs, result and gradients."""
    evaluate(native, problem)  # whatever stays loaded
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    results = evaluate(native, problem)
    needed = sum(result.numel() * result.element_size() for result in results.values())
    return (torch.cuda.max_memory_allocated() - before - needed) / MIB


def test_a_stage_of_video_swin_needs_little_beyond_its_inputs_and_results() -> None:
    """The tokens are 28 MiB in float32, the scores of 3 heads would be 113 MiB, a table of one head is 10 KiB."""
    settings = {"dtype": torch.float32, "batch": 1, "num_heads": 3, "head_dim": 32, "shift": (4, 3, 3)}
    assert extra_memory(make_problem((8, 56, 56), (8, 7, 7), **settings)) < 24


def test_attention_among_all_tokens_holds_no_square_of_them() -> None:
    """The scores of 8192 tokens alone would be 256 MiB."""
    settings = {"batch": 1, "num_heads": 1, "head_dim": 16, "bias": False, "pad": False}
    assert extra_memory(make_problem((8, 32, 32), (8, 32, 32), **settings)) < 8


def test_the_bias_of_a_large_plane_is_not_laid_out_pair_by_pair() -> None:
    """4096 tokens of one frame have 64 MiB of pairs, and a table of 63 KiB, of which each thread block has copies."""
    problem = make_problem((1, 64, 64), (1, 64, 64), batch=1, num_heads=1, head_dim=16, pad=False)
    assert extra_memory(problem) < 40


@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_into_graphs_by_torch() -> None:
    table = torch.randn(3 * 5 * 5, 2, device=DEVICE)

    def attention(x: Tensor) -> Tensor:
        return ops.grid_attention(x, (4, 6, 7), num_heads=2, block=(2, 3, 3), shift=(1, 1, 1), bias_table=table) + 1

    compiled: Any = torch.compile(attention, mode="reduce-overhead", fullgraph=True)
    with torch.no_grad():
        for _ in range(4):
            x = torch.randn(2, 4, 6, 7, 48, device=DEVICE)
            torch.compiler.cudagraph_mark_step_begin()
            torch.testing.assert_close(compiled(x), attention(x))


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [({"dtype": torch.float64}, "float64"), ({"head_dim": 12}, "head_dim"), ({"head_dim": 136}, "head_dim")],
    ids=["float64", "no-multiple-of-8", "large"],
)
def test_what_no_kernel_takes_is_for_the_reference(
    sizes: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_backend, "_warned", set())  # each reason is said once a process
    problem = make_problem((2, 3, 4), (2, 3, 2), **sizes)
    with use_backend("native"), pytest.raises(RuntimeError, match=f"grid_attention: .*{reason}"):
        evaluate(ops.grid_attention, problem)
    with pytest.warns(UserWarning, match=f"{reason}.*The reference answers") as said:
        results = [evaluate(ops.grid_attention, problem) for _ in range(2)]
    assert len(said) == 1
    expected = evaluate(reference.grid_attention, problem)
    torch.testing.assert_close(results, [expected, expected], rtol=0, atol=0)
