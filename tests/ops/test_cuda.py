"""What only a GPU has: streams, graphs, other devices, memory of its own, and room for more than 2^31 elements."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import kernel_check
import pytest
import torch
from attention_check import Problem, check, evaluate, every_dtype, make_problem, native
from depthwise_check import make_depthwise
from pooling_attention_check import make_pooling_attention
from pooling_check import Pool, make_pool_qkv, make_pool_tokens
from target import DEVICE
from torch import Tensor

from vtfast import _backend, ops, reference, use_backend

pytestmark = [pytest.mark.requires_native, pytest.mark.requires_cuda, pytest.mark.every_device]

MIB = 2**20
SECOND = 2_000_000_000  # cycles of a GPU, more or less


@dataclass
class Step:
    """A forward and a backward on tensors that may change in between."""

    floats: list[Tensor]
    key_mask: Tensor | None
    run: Callable[[], dict[str, Tensor]]

    def refill(self) -> None:
        for tensor in self.floats:
            tensor.normal_()
        if self.key_mask is not None:
            self.key_mask.copy_(torch.rand(self.key_mask.shape) > 0.5)


def grid_attention_step(prefix_queries: str, dtype: torch.dtype) -> Step:
    """Windows, padding, table, mask and prefix: all that a forward and a backward may launch."""
    problem = windows(prefix_queries, dtype)
    floats = [*problem.leaves().values(), problem.grad_out]
    return Step(floats, problem.key_mask, partial(evaluate, native, problem))


def windows(prefix_queries: str, dtype: torch.dtype) -> Problem:
    key_mask = torch.rand(2, 3 * 9 * 10) > 0.3
    settings = {"shift": (1, 2, 2), "num_prefix": 2, "prefix_queries": prefix_queries, "key_mask": key_mask}
    return make_problem((3, 9, 10), (2, 4, 4), dtype=dtype, head_dim=32, **settings)


def given_everything(name: str, dtype: torch.dtype) -> kernel_check.Problem:
    """With all that an operation may be given."""
    if name == "depthwise_conv3d":
        return make_depthwise((5, 9, 10), (3, 3, 3), dtype=dtype, channels=72, residual=True)
    if name == "depthwise_conv3d, strided":
        return make_depthwise((5, 9, 10), (3, 3, 3), stride=(1, 2, 2), dtype=dtype, channels=72)
    q, kv = Pool((3, 3, 3)), Pool((3, 3, 3), (1, 2, 2))
    if name == "pooling_attention":
        return make_pooling_attention((3, 9, 10), (3, 5, 5), dtype=dtype, head_dim=32, residual=True)
    if name == "pool_qkv":
        return make_pool_qkv((3, 9, 10), (q, kv, replace(kv, mode="avg")), dtype=dtype, head_dim=32)
    return make_pool_tokens((3, 9, 10), replace(kv, mode="max"), dtype=dtype, head_dim=32)


POOLING = ["pool_tokens", "pool_qkv", "pooling_attention"]
CONVOLUTIONS = ["depthwise_conv3d", "depthwise_conv3d, strided"]


@pytest.fixture(params=["global", "mean", *POOLING, *CONVOLUTIONS])
def step(request: pytest.FixtureRequest, dtype: torch.dtype) -> Step:
    if request.param in ("global", "mean"):
        return grid_attention_step(request.param, dtype)
    problem = given_everything(request.param, dtype)
    floats = [*problem.leaves.values(), *problem.grads_out]
    return Step(floats, None, partial(kernel_check.evaluate, problem))


@every_dtype
def test_a_captured_step_replays_on_new_data(step: Step) -> None:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step.run()  # what is loaded once cannot be captured
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step.run()
    for _ in range(2):
        step.refill()
        graph.replay()
        torch.testing.assert_close(captured, step.run(), rtol=0, atol=0)


@every_dtype
def test_work_is_queued_on_the_current_stream(step: Step) -> None:
    """A kernel on another stream would not wait, and read the NaN that the inputs are at first."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        expected = step.run()
        step.run()  # leaves memory to the next call, which then allocates none and so cannot wait
    torch.cuda.synchronize()
    values = [tensor.clone() for tensor in step.floats]
    for tensor in step.floats:
        tensor.fill_(float("nan"))
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(SECOND // 10)
        for tensor, value in zip(step.floats, values, strict=True):
            tensor.copy_(value)
        results = step.run()
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
def test_nothing_waits_for_the_gpu(step: Step) -> None:
    step.run()  # loads kernels and allocates, which may wait
    torch.cuda.synchronize()
    torch.cuda._sleep(SECOND)
    awake = torch.cuda.Event()
    awake.record()
    with waiting_forbidden():
        step.run()
    assert not awake.query()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@every_dtype
@pytest.mark.parametrize("name", ["grid_attention", *POOLING, *CONVOLUTIONS])
def test_another_device_than_the_current_one(name: str, dtype: torch.dtype) -> None:
    other = torch.device("cuda", 1)
    if name != "grid_attention":
        moved = given_everything(name, dtype).changed(lambda tensor: tensor.to(other))
        kernel_check.check(moved)
        results = kernel_check.evaluate(moved)
    else:
        problem = windows("mean", dtype)
        tensors = ("qkv", "bias_table", "pad_qkv", "key_mask", "grad_out")
        there = replace(problem, **{tensor: getattr(problem, tensor).to(other) for tensor in tensors})
        check(there)
        results = evaluate(native, there)
    assert {result.device for result in results.values()} == {other}
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


def last_of_many(problem: kernel_check.Problem, batch: int) -> kernel_check.Problem:
    """The one clip of `problem` behind others that are NaN."""

    def repeated(tensor: Tensor) -> Tensor:
        many = tensor.new_full((batch, *tensor.shape[1:]), float("nan"))
        many[-1:] = tensor
        return many

    return problem.of_clips(repeated)


OF_MODELS: dict[str, Callable[[], kernel_check.Problem]] = {
    "pool_tokens": lambda: make_pool_tokens(
        (8, 56, 56), Pool((3, 3, 3), (1, 2, 2)), dtype=torch.bfloat16, batch=1, num_heads=1, head_dim=96
    ),
    "pool_qkv": lambda: make_pool_qkv(
        (8, 56, 56), (None, *[Pool((3, 3, 3), (1, 8, 8))] * 2), dtype=torch.bfloat16, batch=1, num_heads=1, head_dim=32
    ),
    "pooling_attention": lambda: make_pooling_attention(
        (8, 56, 56), (8, 7, 7), dtype=torch.bfloat16, batch=1, num_heads=1, head_dim=96, residual=True
    ),
    "depthwise_conv3d": lambda: make_depthwise(
        (8, 56, 56), (3, 3, 3), dtype=torch.bfloat16, batch=1, channels=64, residual=True
    ),
    "depthwise_conv3d, strided": lambda: make_depthwise(
        (8, 56, 56), (3, 3, 3), stride=(1, 2, 2), dtype=torch.bfloat16, batch=1, channels=64
    ),
}


@pytest.mark.parametrize("name", OF_MODELS)
def test_more_elements_of_clips_than_32_bits_can_count(name: str) -> None:
    torch.cuda.empty_cache()
    if torch.cuda.mem_get_info()[0] < 24 * 1024 * MIB:
        pytest.skip("needs 24 GiB of free GPU memory")
    alone = OF_MODELS[name]()
    many = last_of_many(alone, 2**31 // alone.tokens.numel() + 2)
    assert many.tokens.numel() > 2**31
    results, expected = kernel_check.evaluate(many), kernel_check.evaluate(alone)
    for result, wanted in expected.items():
        if result.startswith("out") or result.removeprefix("d_") in alone.operation.tokens:
            assert torch.equal(results[result][-1:], wanted), result


@pytest.mark.parametrize("kernel", [(3, 3, 3), (3, 5, 3)], ids=["sliding", "any"])
def test_a_clip_of_more_elements_than_32_bits_can_count(kernel: tuple[int, int, int]) -> None:
    torch.cuda.empty_cache()
    if torch.cuda.mem_get_info()[0] < 24 * 1024 * MIB:
        pytest.skip("needs 24 GiB of free GPU memory")
    end = make_depthwise((8, 56, 56), kernel, dtype=torch.bfloat16, batch=1, channels=64, residual=True)
    frames = 2**31 // end.tokens[0, 0].numel() + 9

    def before(tensor: Tensor) -> Tensor:
        clip = tensor.new_full((1, frames, *tensor.shape[2:]), float("nan"))
        clip[:, -8:] = tensor
        return clip

    clip = end.of_clips(before)
    assert clip.tokens.numel() > 2**31
    results, expected = kernel_check.evaluate(clip), kernel_check.evaluate(end)
    for name in ("out0", "d_x"):
        assert torch.equal(results[name][:, -7:], expected[name][:, -7:]), name


def extra_memory(step: Callable[[], dict[str, Tensor]]) -> float:
    """MiB by which the peak of a training step exceeds inputs, result and gradients."""
    step()  # whatever stays loaded
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    results = step()
    needed = sum(result.numel() * result.element_size() for result in results.values())
    return (torch.cuda.max_memory_allocated() - before - needed) / MIB


def test_a_stage_of_video_swin_needs_little_beyond_its_inputs_and_results() -> None:
    """The tokens are 28 MiB in float32, the scores of 3 heads would be 113 MiB, a table of one head is 10 KiB."""
    settings = {"dtype": torch.float32, "batch": 1, "num_heads": 3, "head_dim": 32, "shift": (4, 3, 3)}
    problem = make_problem((8, 56, 56), (8, 7, 7), **settings)
    assert extra_memory(partial(evaluate, native, problem)) < 24


def test_attention_among_all_tokens_holds_no_square_of_them() -> None:
    """The scores of 8192 tokens alone would be 256 MiB."""
    settings = {"batch": 1, "num_heads": 1, "head_dim": 16, "bias": False, "pad": False}
    problem = make_problem((8, 32, 32), (8, 32, 32), **settings)
    assert extra_memory(partial(evaluate, native, problem)) < 8


def test_the_bias_of_a_large_plane_is_not_laid_out_pair_by_pair() -> None:
    """4096 tokens of one frame have 64 MiB of pairs, and a table of 63 KiB, of which each thread block has copies."""
    problem = make_problem((1, 64, 64), (1, 64, 64), batch=1, num_heads=1, head_dim=16, pad=False)
    assert extra_memory(partial(evaluate, native, problem)) < 40


@pytest.mark.parametrize("name", OF_MODELS)
def test_the_first_block_of_a_model_needs_little_beyond_its_inputs_and_results(name: str) -> None:
    """The tokens are 4.6 MiB for each 96 channels in bfloat16, the scores would be 19 MiB."""
    assert extra_memory(partial(kernel_check.evaluate, OF_MODELS[name]())) < 16


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
