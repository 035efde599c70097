"""The cost model against times measured on CPUs: those of results that were kept, and of this machine.

Whole models come within 25 %, and so do operations of more than two milliseconds, but for these: long groups in
bfloat16 on matrix tiles and the short ones of time attention in a backward (either way), and pooling and depthwise
convolutions, which take half to twice as long. Shorter work takes up to three times as long as predicted beside others,
which leave it cold caches and sleeping threads.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from vtfast import _library
from vtfast.bench.ceilings import copy, gemm
from vtfast.bench.environment import facts
from vtfast.bench.measure import Case, Effort, Way, run_case
from vtfast.bench.request import Request
from vtfast.bench.results import JUDGED, Record, Results, rates_of
from vtfast.bench.shape_text import parse_shape, text_of
from vtfast.bench.shapes import ModelShape
from vtfast.bench.subjects import subject_named
from vtfast.bench.subjects.subject import AUTOCAST, BOTH, FORWARD, MODEL
from vtfast.bench.upstreams.upstream import clip_of, forward_way, training_way
from vtfast.models import create_model
from vtfast.ops._arguments import as_if_unobserved
from vtfast.plan.comparison import Comparison
from vtfast.plan.cost import Call
from vtfast.plan.counter import count
from vtfast.plan.estimate import estimate
from vtfast.plan.machines import Machine
from vtfast.plan.trace import FakeInitialisation, Work, trace

__all__ = ["against_results", "calls_of", "machine_of", "validate"]

# Made beside its upstream's modules, whose fake weights cannot be cast.
_NOT_TRACED = ("window_attention_layer",)

# Of one core of a processor with AVX-512; where a run measured its own, that counts.
_EXPS_A_CORE = 10.4e9
# Copy, read and write, of a small server; likewise.
_COPY = 26e9
# The share of a server's last cache that a few of its cores can count on.
_CACHE = 16e6
# From one operator of PyTorch to the next, with its autograd.
_OPERATOR = 5e-6
# glibc's heap, and the scratch of oneDNN, of OpenMP and of the kernels; from the committed peaks of whole models.
_HEAP_SLACK, _SCRATCH = 0.07, 40 * 2**20


def machine_of(ceilings: Mapping[str, float], run_facts: Mapping[str, Any]) -> Machine:
    """A CPU by its measured ceilings.

    Args:
        ceilings: units a second by name, as results keep them; "GEMM float32" at least.
        run_facts: of the run, "instruction set", "threads" and "processor" among them.
    """
    float32 = ceilings["GEMM float32"]
    products = {name: ceilings.get(f"GEMM {name}", float32) for name in ("bfloat16", "float16")}
    return Machine(
        str(run_facts["processor"]),
        is_gpu=False,
        products={"float32": float32, "float64": float32 / 2, **products},
        vector=float32,
        exps=ceilings.get("exp", _EXPS_A_CORE * run_facts["threads"]),
        copy=ceilings.get("copy", _COPY),
        cache=_CACHE,
        memory=float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        launch=_OPERATOR,
        reserved=_SCRATCH,
        slack=_HEAP_SLACK,
        instruction_set=str(run_facts["instruction set"]),
    )


def calls_of(record: Record) -> tuple[Call, ...]:
    """The operators of the work of a record."""
    if record.kind == MODEL:
        return trace(_work_of(record)).cost.calls
    request = Request(record.subject, record.name, record.shape, record.dtype, record.mode, (JUDGED,))
    # Tensors without data: sizes are all that counts.
    with FakeTensorMode(), as_if_unobserved(FakeTensor):
        with FakeInitialisation():
            run = _judged(request).run
        return count(run).calls


def _work_of(record: Record) -> Work:
    shape = parse_shape(record.shape, next(iter(subject_named(record.subject).sizes.values())))
    dtype = "autocast" if record.dtype == AUTOCAST else record.dtype
    mode = "training" if record.mode == BOTH else "inference"
    config = {**_without_stochastic_depth(record.subject), **shape.config}
    return Work(record.subject, shape.clip, dtype, mode, on_gpu=False, config=tuple(sorted(config.items())))


def _without_stochastic_depth(model: str) -> dict[str, Any]:
    return {} if model == "timesformer_lucidrains" else {"drop_path_rate": 0.0}


def against_results(
    results: Results, wanted: Callable[[Record], bool] = lambda record: True, allocator: str = "default"
) -> list[Comparison]:
    """Every wanted record of a machine that was measured on a CPU with all of its run's threads, and is right.

    A record's own yardsticks count, which met the same machine; of the others the best that the results have, for that
    is what a ceiling is: clocks of shared machines change within hours.
    """
    best: dict[str, float] = {}
    for run in results.runs:
        for rates in (run.ceilings, *(record.yardsticks() for record in run.records)):
            if run.facts["threads"] >= max(other.facts["threads"] for other in results.runs):
                best = {name: max(rates.get(name, 0.0), best.get(name, 0.0)) for name in {*best, *rates}}
    found = []
    for run in results.runs:
        if run.allocator != allocator:
            continue
        for record in run.records:
            comparable = record.threads == run.facts["threads"] and record.subject not in _NOT_TRACED
            if record.device == "cpu" and comparable and record.seconds is not None and wanted(record):
                machine = machine_of({**best, **record.yardsticks()}, run.facts)
                found.append(_compared(record, calls_of(record), machine, record.seconds))
    return found


def _compared(record: Record, calls: Sequence[Call], machine: Machine, seconds: float) -> Comparison:
    return Comparison(record.title, record.kind, estimate(calls, machine).seconds, seconds)


# What `validate` measures: the operations at sizes of the models, and models of each kind.
_OPERATIONS = (
    ("window_attention", 0), ("time_attention", 1), ("space_attention", 0), ("pooling_attention", 1), ("pool_qkv", 1),
    ("depthwise_conv3d", 0),
)  # fmt: skip
_MODELS = ("swin3d_t", "mvit_v2_s", "uniformer_s")
_EFFORT = Effort(seconds=2.0, max_rounds=7, min_rounds=3)


def validate(effort: Effort = _EFFORT) -> Iterator[Comparison]:
    """Times operations and models on this CPU, each beside a GEMM and a copy, and predicts them from those.

    Raises:
        RuntimeError: this installation has no compiled kernels.
    """
    missing = _library.why_unavailable()
    if missing is not None:
        raise RuntimeError(f"the cost model follows the compiled operators, and there are none: {missing}")
    run_facts = facts("default")
    for record, make in _requests():
        yield _measured(record, make, run_facts, effort)


def _requests() -> Iterator[tuple[Record, Callable[[], Way]]]:
    for name, index in _OPERATIONS:
        subject = subject_named(name)
        size, shape = list(subject.sizes.items())[index]
        for dtype, mode in (("float32", FORWARD), ("bfloat16", FORWARD), ("float32", BOTH)):
            request = Request(name, size, text_of(shape), dtype, mode, (JUDGED,), threads=torch.get_num_threads())
            yield request.record(), lambda request=request: _judged(request)  # type: ignore[misc]
    for name in _MODELS:
        subject = subject_named(name)
        size, shape = next(iter(subject.sizes.items()))
        shape = replace(shape, clip=(1, 3, 16, 224, 224))
        for dtype, mode in (("float32", FORWARD), ("bfloat16", FORWARD), ("float32", BOTH)):
            record = Record(name, MODEL, size, text_of(shape), dtype, mode, threads=torch.get_num_threads())
            yield record, lambda shape=shape, record=record: _model_way(shape, record)  # type: ignore[misc]


def _judged(request: Request) -> Way:
    return next(way for way in request.case().ways() if way.name == JUDGED)


def _model_way(shape: ModelShape, record: Record) -> Way:
    dtype = getattr(torch, record.dtype)
    model = create_model(shape.model, **_without_stochastic_depth(shape.model)).to(dtype)
    clip = clip_of(shape).to(dtype)
    if record.mode == BOTH:
        return training_way(JUDGED, model.train(), clip, dict)
    return forward_way(JUDGED, model.eval(), clip)


def _measured(record: Record, make: Callable[[], Way], run_facts: Mapping[str, Any], effort: Effort) -> Comparison:
    """Against the rates of the same rounds: the machine's clock and load change."""
    yardsticks = [gemm(dtype) for dtype in {torch.float32, getattr(torch, record.dtype)}]

    def ways() -> list[Way]:
        # What is compared with the reference elsewhere is only timed here.
        return [replace(make(), outputs=None), *yardsticks, copy(size=64 * 2**20)]

    timed = {result.way: result for result in run_case(Case(record.title, ways), effort) if result.timing is not None}
    timing = timed[JUDGED].timing
    assert timing is not None
    return _compared(record, calls_of(record), machine_of(rates_of(timed.values()), run_facts), timing.median)
