import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from planted_results import CEILINGS, FACTS, record, result, results

from vtfast.bench.request import Request
from vtfast.bench.results import Record, Results, Run
from vtfast.bench.runner import Failure
from vtfast.cli import bench as command
from vtfast.cli import main

Capture = pytest.CaptureFixture[str]
Answer = Callable[[Request], Record | Failure]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What would be measured; every answer is a tenth of a second against two of eager."""
    requests: list[Request] = []
    answers: list[Answer] = [lambda request: measured(request, result("eager", 0.2), result("vtfast", 0.1))]

    def measure_all(wanted: Sequence[Request], allocator: str, run: Run) -> Iterator[Record | Failure]:
        run.facts, run.ceilings = FACTS | {"allocator": f"{allocator} (libc)"}, dict(CEILINGS)
        for request in wanted:
            requests.append(request)
            answer = answers[-1](request)
            if isinstance(answer, Record):
                run.records.append(answer)
            yield answer

    monkeypatch.setattr(command, "measure_all", measure_all)
    monkeypatch.setattr(command, "answers", answers, raising=False)
    return requests


def measured(request: Request, *found: Any) -> Record:
    return record(
        *found, subject=request.subject, name=request.name, shape=request.shape, dtype=request.dtype,
        mode=request.mode, threads=request.threads,
    )  # fmt: skip


def answer(this: Answer) -> None:
    command.answers.append(this)  # type: ignore[attr-defined]


ONE = ["bench", "--op", "pool_tokens", "--shape", "grid=2x4x4", "--dtype", "float32", "--mode", "forward"]


def test_operations_and_models_are_measured_by_rule(asked: list[Request]) -> None:
    assert main(["bench", "--quick"]) == 0
    assert {"window_attention", "depthwise_conv3d", "swin3d_t"} <= {request.subject for request in asked}
    assert all(request.quick for request in asked)


def test_naming_models_leaves_out_operations(asked: list[Request]) -> None:
    assert main(["bench", "--model", "swin3d_?", "--dtype", "autocast", "--mode", "forward"]) == 0
    assert {request.subject for request in asked} >= {"swin3d_t", "swin3d_b"}
    assert {(request.dtype, request.mode) for request in asked} == {("autocast bfloat16", "forward")}


def test_scaling_alone(asked: list[Request]) -> None:
    assert main(["bench", "scaling", "--sweep", "batch", "--op", "window_attention"]) == 0
    assert [(request.sweep, request.at) for request in asked] == [("batch", at) for at in (1, 2, 4, 8)]


def test_the_table_has_times_ratios_and_the_limit(asked: list[Request], capsys: Capture) -> None:
    assert main(ONE) == 0
    out, err = capsys.readouterr()
    assert "pool_tokens, forward" in out
    assert "100 ± 1 %" in out
    assert "2.00" in out
    assert "10 (GEMM float32)" in out
    assert "pool_tokens" in err
    assert "2.00 x eager" in err


def test_results_are_kept_after_every_case_and_others_stay(asked: list[Request], tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results(record(result("vtfast", 7.0))).save(path)
    seen: list[int] = []

    def fails_in_the_end(request: Request) -> Record | Failure:
        seen.append(len(Results.load(path).runs))
        if request.dtype == "bfloat16":
            return Failure(request, "the process ended with status -11", skipped=False)
        return measured(request, result("vtfast", 1.0))

    answer(fails_in_the_end)
    assert main([*ONE[:-4], "--dtype", "float32", "bfloat16", "--mode", "forward", "--json", str(path)]) == 1
    assert seen == [1, 2]
    kept = [entry.subject for run in Results.load(path).runs for entry in run.records]
    assert kept == ["window_attention", "pool_tokens"]


def test_a_result_that_differs_gets_no_ratio_and_fails(asked: list[Request], capsys: Capture) -> None:
    answer(lambda request: measured(request, result("eager", 0.2), result("vtfast", 0.1, False)))
    assert main(ONE) == 1
    out, err = capsys.readouterr()
    assert "DIFFERS" in out
    assert "x eager" not in out
    assert "the result of vtfast differs from the reference: pool_tokens" in err


def test_what_cannot_be_measured_here_is_no_failure(asked: list[Request], capsys: Capture) -> None:
    answer(lambda request: Failure(request, "torchvision is not installed", skipped=True))
    assert main(ONE) == 0
    assert "skipped: torchvision is not installed" in capsys.readouterr().err


class TestCompare:
    def against(self, seconds: float, tmp_path: Path, asked: list[Request]) -> int:
        old = tmp_path / "old.json"
        main([*ONE, "--json", str(old)])
        answer(lambda request: measured(request, result("eager", 0.2), result("vtfast", seconds)))
        return main([*ONE, "--compare", str(old)])

    def test_slower_beyond_the_noise_fails(self, asked: list[Request], tmp_path: Path, capsys: Capture) -> None:
        assert self.against(0.15, tmp_path, asked) == 1
        out = capsys.readouterr().out
        assert "slower       pool_tokens" in out
        assert "1.50 x the time" in out
        assert "1 worse, 0 faster beyond the noise" in out

    def test_faster_or_as_fast_does_not(self, asked: list[Request], tmp_path: Path, capsys: Capture) -> None:
        assert self.against(0.101, tmp_path, asked) == 0
        assert "0 worse, 0 faster" in capsys.readouterr().out

    def test_another_machine_is_noted(self, asked: list[Request], tmp_path: Path, capsys: Capture) -> None:
        results(record(result("vtfast", 7.0)), processor="Another").save(tmp_path / "old.json")
        assert main([*ONE, "--compare", str(tmp_path / "old.json")]) == 0
        out, err = capsys.readouterr()
        assert "earlier results have processor Another" in err
        assert "0 cases, 1 that they do not have" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--op", "window"], "--op must match one of"),
        (["--model", "swin"], "--model must match one of"),
        (["--shape", "grid=2x4x4"], "--shape is a size of one operation"),
        (["--op", "pool_tokens", "--shape", "grid=2"], "grid must be 3 numbers"),
        (["--op", "pool_tokens", "--peers", "SDPA"], "--peers of pool_tokens must be among"),
        (["--op", "pool_tokens", "--dtype", "autocast"], "--dtype autocast is for models"),
        (["--device", "cuda"], "--device cuda: torch finds no CUDA device"),
        (["--compare", "missing.json"], "missing.json"),
    ],
)
def test_what_cannot_be_is_said(arguments: list[str], message: str, asked: list[Request], capsys: Capture) -> None:
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert asked == []


@pytest.mark.slow
@pytest.mark.requires_native
def test_a_real_measurement(tmp_path: Path, capsys: Capture) -> None:
    """In processes of their own, with memory."""
    path = tmp_path / "results.json"
    assert main([*ONE, "--quick", "--memory", "--json", str(path)]) == 0
    (run,) = json.loads(path.read_text())["runs"]
    assert {"GEMM float32", "GEMM bfloat16", "copy", "exp"} <= set(run["ceilings"])
    (found,) = Results.load(path).runs[0].records
    assert {entry.way: entry.agrees for entry in found.results} == {"eager": True, "vtfast": True, "copy": None}
    assert all(entry.peak_bytes is not None for entry in found.results if entry.agrees)
    assert "MiB" in capsys.readouterr().out
