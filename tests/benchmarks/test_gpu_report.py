import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu.attention import BOTH, FORWARD, core_job, fewest_bytes
from benchmarks.gpu.figures import Figures, ceilings_of, targets
from benchmarks.gpu.probe import slug
from benchmarks.gpu.report import PICTURE, figures_of, gather, markdown, summary, write
from vtfast.bench.measure import Result, Timing
from vtfast.bench.results import Results
from vtfast.bench.shapes import FILLING_SPACE, FILLING_TIME, FILLING_WINDOWS

SHAPE = FILLING_WINDOWS[1].shifted()


def result(way: str, seconds: float | None, agrees: bool = True, note: str | None = None) -> dict[str, Any]:
    timing = None if seconds is None else {"median": seconds, "low": seconds, "high": seconds, "rounds": 9}
    return {"way": way, "timing": timing, "errors": [1e-3], "agrees": agrees, "note": note, "extra_bytes": 3 * 2**20}


def record(mode: str, *results: dict[str, Any], state: str = "done", **more: Any) -> dict[str, Any]:
    case = core_job(SHAPE, torch.bfloat16, mode, (), "cpu").case
    facts = {"case": case.name, "facts": case.facts, "flops": case.flops, "fewest_bytes": case.fewest_bytes}
    return {**facts, "state": state, "results": list(results), **more}


def ceiling(name: str, rate: float) -> dict[str, Any]:
    results = [{"way": name, "timing": Timing(1.0, 1.0, 1.0, 3).__dict__, "flops": rate}]
    return {"case": name, "facts": {}, "state": "done", "results": results}


CEILINGS = [ceiling("copy", 1e12), ceiling("GEMM bfloat16", 1e14), ceiling("exp", 1e12)]


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """What a run leaves behind: one case done, one refused in part, one lost, a failed test."""
    verdicts = [
        {"test": "tests/ops/test_a.py::test_x", "outcome": "failed", "why": "one\nE   assert 1 == 2\nlast"},
        {"test": "tests/ops/test_a.py::test_x", "outcome": "passed", "why": ""},
        {"test": "tests/ops/test_a.py::test_y", "outcome": "passed", "why": ""},
    ]
    moved = fewest_bytes(SHAPE, torch.bfloat16, FORWARD)
    peers = [result("eager", 0.02), result("SDPA cuDNN", None, note="refused: no | kernel"), result("compile", 0.01)]
    forward = record(FORWARD, *peers, result("SDPA math", 1e-9, agrees=False), result("vtfast", 2 * moved / 1e12))
    lost = record(BOTH, state="failed", note="the process ended with status -11")
    for name, records in (("tests", verdicts), ("ceilings", CEILINGS), ("attention", [forward, lost])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in records))
    stages = [{"stage": "tests", "status": "timed out", "seconds": 12.3, "note": "after 12 s; waiting"}]
    (tmp_path / "stages.json").write_text(json.dumps(stages))
    (tmp_path / "probe.json").write_text(json.dumps({"name": "Planted GPU", "driver": "1.2"}))
    return tmp_path


class TestFigures:
    def of(self, *results: dict[str, Any]) -> Figures:
        return Figures.of(record(FORWARD, *results), ceilings_of(CEILINGS))

    def test_share_of_the_copy(self):
        seconds = fewest_bytes(SHAPE, torch.bfloat16, FORWARD) / 1e12
        assert self.of(result("vtfast", 2 * seconds)).share_of_copy() == pytest.approx(50)

    def test_a_wrong_result_has_no_rate(self):
        figures = self.of(result("vtfast", 1.0, agrees=False), result("eager", 2.0))
        assert (figures.share_of_copy(), figures.flops_per_second(), figures.over("eager")) == (None, None, None)

    def test_the_best_peer_is_right_and_not_vtfast(self):
        figures = self.of(
            result("eager", 3.0), result("SDPA math", 0.1, agrees=False), result("compile", 2.0),
            result("vtfast", 1.0), result("vtfast compiled", 0.5),
        )  # fmt: skip
        assert figures.best_peer() == "compile"
        assert figures.over("compile") == 4.0

    def test_the_limit_is_what_takes_longest(self):
        figures = self.of(result("vtfast", 1.0))
        exps = SHAPE.num_tokens * 98 * 3
        assert figures.limit() == ("copy", pytest.approx(SHAPE.num_tokens * 96 * 4 * 2 / 1e12))
        slow_exp = Figures.of(record(FORWARD), ceilings_of([*CEILINGS[:2], ceiling("exp", 1e6)]))
        assert slow_exp.limit() == ("exp", pytest.approx(exps / 1e6))

    def test_a_case_without_ceilings_has_no_limit(self):
        assert Figures.of(record(FORWARD, result("vtfast", 1.0)), {}).limit() is None


class TestReport:
    def test_summary(self, scratch):
        text = summary(gather(scratch))
        assert "Planted GPU" in text
        assert "timed out" in text
        assert "tests: 1 failed, 1 passed" in text
        assert "tests/ops/test_a.py::test_x: E   assert 1 == 2" in text
        target = "window 2 x 7 x 7, shifted, bfloat16, forward  "
        (line,) = [line for line in text.splitlines() if line.startswith(target)]
        assert line.split()[-2:] == ["50", "missed"]

    def test_markdown(self, scratch):
        text = markdown(gather(scratch))
        assert "| SDPA cuDNN | refused: no / kernel |" in text
        assert "DIFFERS" in text
        assert "failed: the process ended with status -11" in text
        assert "copy | 1e+03 GB/s" in text

    def test_every_line_of_a_table_has_as_many_cells(self, scratch):
        table: list[int] = []
        for line in [*markdown(gather(scratch)).splitlines(), ""]:
            if line.startswith("|"):
                table.append(line.count("|"))
            else:
                assert len(set(table)) <= 1
                table = []

    def test_records_are_those_of_vtfast_bench(self, scratch, tmp_path):
        write(scratch, tmp_path)
        (run,) = Results.load(tmp_path / "bench.json").runs
        (found,) = run.records
        assert (run.facts["device"], run.ceilings["copy"], found.device) == ("Planted GPU", 1e12, "cuda")
        assert found.best_peer().way == "compile"
        assert found.share_of_limit(run.ceilings) == ("copy", pytest.approx(0.5))

    def test_nothing_measured_is_a_report_too(self, tmp_path):
        results = gather(tmp_path)
        assert "none ran" in summary(results)
        assert "not measured" in markdown(results)

    def test_picture(self, scratch, tmp_path):
        pytest.importorskip("matplotlib")
        command = [sys.executable, "-m", "benchmarks.gpu.roofline", str(scratch), str(tmp_path / PICTURE)]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
        assert (tmp_path / PICTURE).read_bytes().startswith(b"\x89PNG")
        write(scratch, tmp_path)
        assert f"({PICTURE})" in (tmp_path / "report.md").read_text()

    def test_files_without_a_picture(self, scratch):
        write(scratch, scratch)
        assert json.loads((scratch / "results.json").read_text())["device"]["name"] == "Planted GPU"
        assert (scratch / "report.md").read_text().startswith("# Planted GPU")
        assert PICTURE not in (scratch / "report.md").read_text()

    def test_results_survive_json(self, scratch):
        (figures, lost) = figures_of(json.loads(json.dumps(gather(scratch))))
        assert isinstance(figures.result("eager"), Result)
        assert lost.note == "failed: the process ended with status -11"


def test_targets_name_cases_that_are_measured():
    from benchmarks.gpu import attention, depthwise, models

    modules = (attention, depthwise, models)
    measured = {job.case.name for module in modules for job in module.jobs("cuda", quick=False)}
    assert {target.case for target in targets()} <= measured


def test_fewest_bytes():
    tokens = 32 * 8 * 56 * 56
    assert fewest_bytes(SHAPE, torch.bfloat16, FORWARD) == tokens * 96 * 2 * (3 + 1)
    assert fewest_bytes(SHAPE, torch.float32, BOTH) == tokens * 96 * 4 * (3 + 1 + 3 + 1 + 3)
    for shape, cls in ((FILLING_TIME[0], 0), (FILLING_SPACE, 1)):
        tokens = 64 * (cls + 8 * 14 * 14)
        assert shape.fewest_bytes(2, backward=False) == tokens * 768 * 2 * (3 + 1)
        assert shape.fewest_bytes(4, backward=True) == tokens * 768 * 4 * (3 + 1 + 3 + 1 + 3)


@pytest.mark.parametrize(
    ("name", "folder"), [("NVIDIA H200", "nvidia-h200"), ("A (B) C/D", "a-b-c-d"), ("", "unknown")]
)
def test_slug(name, folder):
    assert slug(name) == folder
