"""Predictions: a step's operators and memory, its time on a machine, several GPUs, and the largest clip."""

from dataclasses import replace

import pytest

from vtfast import _library
from vtfast.plan import GPUS, Call, Machine, estimate, gpu, plan
from vtfast.plan.limits import _largest, largest_clips
from vtfast.plan.parallel import all_reduce
from vtfast.plan.study import scaling_study
from vtfast.plan.trace import Work, trace

pytestmark = pytest.mark.requires_native

CLIP = (2, 3, 4, 64, 64)

SLOW = Machine(
    "slow", True, {"float32": 1e9, "bfloat16": 2e9}, vector=1e8, exps=1e7, copy=1e6, cache=0, memory=1e9, launch=1e-6
)


def _seconds(machine: Machine, **amounts: int) -> float:
    return estimate([Call("aten::mm", "float32", **amounts)], machine).seconds


def test_the_busiest_unit_sets_the_time_of_a_gpu_and_a_cpu_does_one_after_the_other() -> None:
    products, moved = _seconds(SLOW, products=10**9), _seconds(SLOW, read=10**6)
    both = {"products": 10**9, "read": 10**6}
    assert _seconds(SLOW, **both) == max(products, moved)
    cpu = replace(SLOW, is_gpu=False)
    parts = [_seconds(cpu, **{name: amount}) - cpu.launch for name, amount in both.items()]
    assert _seconds(cpu, **both) == pytest.approx(sum(parts) + cpu.launch)


def test_a_gpu_waits_for_the_host_that_issues_small_operators() -> None:
    calls = [Call("aten::add", "float32", read=1)] * 10
    found = estimate(calls, replace(SLOW, host=1.0))
    assert found.seconds == found.host == 10.0
    assert found.busy < 1.0


def test_operators_within_the_cache_move_faster() -> None:
    call = [Call("aten::add", "float32", read=10**6)]
    assert estimate(call, replace(SLOW, cache=4e6)).seconds < 0.5 * estimate(call, SLOW).seconds


def test_the_backward_costs_twice_the_forward_and_checkpointing_one_more() -> None:
    flops = {mode: trace(Work("swin3d_t", CLIP, mode=mode)).cost.flops for mode in ("inference", "training")}
    assert 2.9 < flops["training"] / flops["inference"] < 3.4
    again = trace(Work("swin3d_t", CLIP, mode="checkpointing"))
    assert 3.8 < again.cost.flops / flops["inference"] < 4.4
    assert again.peak.activations < 0.5 * trace(Work("swin3d_t", CLIP, mode="training")).peak.activations


def test_parts_of_the_memory() -> None:
    step = trace(Work("swin3d_t", CLIP, mode="training", optimizer="adamw"))
    parameters = step.gradient_bytes
    assert step.peak.weights == pytest.approx(parameters, rel=0.02)  # buffers and the allocator's rounding besides
    assert step.peak.optimizer == 2 * parameters
    assert step.peak.clip == 4 * 2 * 3 * 4 * 64 * 64
    assert step.cost.calls[-1].name == "optimizer::adamw"
    # For a clip this small most is held at the end, when all gradients are there.
    assert step.peak.gradients == pytest.approx(parameters, rel=0.1)


def test_half_the_bytes_in_half_the_precision() -> None:
    exact, rounded = (trace(Work("swin3d_t", CLIP, dtype=dtype)).peak for dtype in ("float32", "bfloat16"))
    assert rounded.weights == pytest.approx(exact.weights / 2, rel=0.05)
    assert rounded.activations == pytest.approx(exact.activations / 2, rel=0.05)
    autocast = trace(Work("swin3d_t", CLIP, dtype="autocast"))
    assert autocast.peak.weights == exact.weights
    assert {call.dtype for call in autocast.cost.calls if call.products} == {"bfloat16"}


def test_a_cpu_keeps_less_alive_than_single_operators_do() -> None:
    clip = (1, 3, 16, 112, 112)
    fused, plain = (trace(Work("swin3d_t", clip, mode="training", on_gpu=on_gpu)) for on_gpu in (False, True))
    assert fused.peak.activations < 0.9 * plain.peak.activations
    assert fused.cost.flops == plain.cost.flops


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("memory", [50.0, 1e3, 1e6])
def test_the_search_finds_the_largest_that_fits_in_a_few_looks(memory: float, power: int) -> None:
    looks = []

    def held(value: int) -> float:
        looks.append(value)
        return 10.0 + 0.1 * value**power + 0.02 * value  # a little off the line that the search expects

    found, ended = _largest(held, memory, start=16, step=2, most=10**9, power=power)
    assert not ended
    assert held(found) <= memory < held(round(1.02 * found) + 2)
    assert len(looks) < 14


def test_the_search_ends_where_the_model_or_the_range_does() -> None:
    assert _largest(lambda value: None if value > 100 else 1.0, 2.0, 16, 2, 10**6, 1) == (100, True)
    assert _largest(lambda value: 1.0, 2.0, 16, 2, 64, 1) == (64, True)
    assert _largest(lambda value: 3.0, 2.0, 16, 2, 64, 1) == (0, False)


def test_the_largest_clips_fit_and_larger_ones_do_not() -> None:
    machine = replace(gpu("l4"), memory=5e8, reserved=0.0)
    work = Work("swin3d_t", CLIP)
    found = largest_clips(work, machine)
    assert found.bounded == ()

    def held(clip: tuple[int, int, int, int, int]) -> float:
        return machine.held(trace(replace(work, clip=clip)).peak.total)

    assert held((2, 3, found.frames, 64, 64)) <= machine.memory
    assert held((found.batch, 3, 4, 64, 64)) <= machine.memory < held((found.batch + 2, 3, 4, 64, 64))
    assert held((2, 3, 4, found.size, found.size)) <= machine.memory < held((2, 3, 4, found.size + 64, found.size + 64))


def test_nothing_fits_in_a_gpu_smaller_than_the_weights() -> None:
    tiny = replace(gpu("l4"), memory=1e7)
    assert not plan("swin3d_t", CLIP, tiny).inference.fits
    limits = largest_clips(Work("swin3d_t", CLIP), tiny)
    assert (limits.frames, limits.batch, limits.size) == (0, 0, 0)


def test_all_reduce_hides_behind_the_backward_but_for_the_last_bucket() -> None:
    machine = gpu("h100-sxm")
    assert all_reduce(1e9, 1.0, 1, machine).exposed == 0.0
    hidden, bare = (all_reduce(1e9, backward, 8, machine) for backward in (1.0, 0.0))
    assert 0.0 < hidden.exposed < 0.05 * bare.seconds
    assert bare.exposed == bare.seconds == pytest.approx(2 * 7 / 8 * 1e9 / (0.8 * 450e9) + 14 * 5e-6)
    assert all_reduce(1e9, 0.0, 16, machine).seconds > 5 * bare.seconds  # through the network
    with pytest.raises(ValueError, match="gpus must be at most 8 for l4, got 16"):
        all_reduce(1e9, 0.0, 16, gpu("l4"))


def test_newer_gpus_are_predicted_to_be_faster() -> None:
    names = ("l4", "a100-80gb", "h100-sxm", "h200", "b200")
    seconds = [plan("swin3d_t", (8, 3, 8, 224, 224), gpu(name), dtype="bfloat16").training.seconds for name in names]
    assert seconds == sorted(seconds, reverse=True)
    assert all(machine.name == name for name, machine in GPUS.items())


def test_a_scaling_study_has_a_row_for_each_model_length_and_gpu() -> None:
    rows = scaling_study(("swin3d_t",), (4, 8), ("a100-80gb", "b200"))
    assert [(row.frames, row.gpu) for row in rows] == [(4, "a100-80gb"), (4, "b200"), (8, "a100-80gb"), (8, "b200")]
    assert rows[2].training_bytes > rows[0].training_bytes
    assert all(row.training_seconds > row.inference_seconds > 0 for row in rows)


def test_what_cannot_be_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    for wanted, options in {
        "name must be a registered model": {"model": "nope"},
        "dtype must be one of": {"dtype": "int8"},
        "optimizer must be one of": {"optimizer": "lion"},
        "gpus must be at least 1": {"gpus": 0},
        "clip must": {"clip": (1, 3, 4, 8)},
    }.items():
        with pytest.raises(ValueError, match=wanted):
            plan(**{"model": "swin3d_t", "clip": CLIP, "machine": gpu("h200")} | options)
    with pytest.raises(ValueError, match="gpu must be one of"):
        gpu("gtx")
    monkeypatch.setattr(_library, "why_unavailable", lambda *args: "this build has no compiled CPU kernels")
    with pytest.raises(RuntimeError, match="no compiled CPU kernels"):
        plan("swin3d_t", (1, 3, 6, 64, 64), gpu("h200"))
