"""`vtfast check`: exit status, table, the line that runs a case again, JSON."""

import json
import math
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vtfast import ops
from vtfast.check.cases import SUBJECTS
from vtfast.check.problems.problem import Problem
from vtfast.check.run import Outcome
from vtfast.check.table import as_json
from vtfast.cli import main
from vtfast.testing import Report, Row

Capture = pytest.CaptureFixture[str]
requires_native = pytest.mark.requires_native


@pytest.fixture
def spoilt_rotary(monkeypatch: pytest.MonkeyPatch) -> None:
    """One element of the result is wrong, for tokens in bfloat16 and in case 4, which is drawn from the seed."""
    subject = SUBJECTS["rotary_embedding"]
    tables: list[Tensor] = []

    def make(**settings: Any) -> Problem:
        problem = subject.make(**settings)
        if settings.items() >= drawn.items():
            tables.append(problem.settings["cos"])
        return replace(problem, operation=replace(problem.operation, function=wrong))

    def wrong(**arguments: Any) -> Tensor:
        out = ops.rotary_embedding(**arguments)
        if out.dtype == torch.bfloat16 and any(table is arguments["cos"] for table in tables):
            spoil = torch.zeros_like(out)
            spoil[0, -1, 2] = 3.0
            out = out + spoil
        return out

    drawn = subject.settings(4, 7, torch.device("cpu"))
    monkeypatch.setitem(SUBJECTS, "rotary_embedding", replace(subject, make=make))
    monkeypatch.setattr("vtfast.cli.check._DRAWN", 3)


@requires_native
@pytest.mark.usefixtures("spoilt_rotary")
def test_a_failure_is_found_named_and_reproduced(capsys: Capture, tmp_path: Path) -> None:
    out_file = tmp_path / "check.json"
    options = ["--dtype", "bfloat16", "float32", "--seed", "7", "--json", str(out_file)]
    assert main(["check", "--op", "rotary_embedding", "--exhaustive", *options]) == 1
    out = capsys.readouterr().out
    fault = next(line for line in out.splitlines() if line.startswith("  out0: error "))
    assert " at [0, " in fault
    assert "is wanted and" in fault
    assert out.endswith("1 of 12 cases failed\n")
    command = "vtfast check --op rotary_embedding --dtype bfloat16 --case 4 --seed 7"
    assert f"  again by: {command}\n" in out
    worst = out[out.index("worst case of") :].splitlines()[1]
    assert worst.endswith(command)

    assert main(shlex.split(command)[1:]) == 1
    again = capsys.readouterr().out
    assert fault in again
    assert "1 of 1 cases failed" in again
    assert main(shlex.split(command.replace("--case 4", "--case 5"))[1:]) == 0

    found = json.loads(out_file.read_text())
    assert found["format"] == 1
    assert found["passed"] is False
    assert found["facts"]["torch"] == torch.__version__
    assert {row["dtype"]: row["failed"] for row in found["rows"]} == {"float32": 0, "bfloat16": 1}
    (case,) = [case for case in found["cases"] if not case["passed"]]
    assert case["command"] == command
    (row,) = [row for row in case["report"]["rows"] if row["fault"] is not None]
    assert row["name"] == "out0"
    assert row["came"] - row["wanted"] == pytest.approx(3, abs=0.1)


@requires_native
def test_a_row_an_operation_and_dtype(capsys: Capture) -> None:
    assert main(["check", "--op", "time_attention", "rotary_embedding", "--dtype", "float64", "float16"]) == 0
    table, worst, end = capsys.readouterr().out.split("\n\n")
    rows = [line.split() for line in table.splitlines()[1:]]
    assert [row[:2] for row in rows] == [
        [op, dtype] for op in ("time_attention", "rotary_embedding") for dtype in ("float64", "float16")
    ]
    assert rows[0][5:] == ["ok"] * 5
    assert rows[1][5:] == ["ok", "ok", "-", "ok", "ok"]
    assert len(worst.splitlines()) == 3
    assert end == "0 of 10 cases failed\n"


@requires_native
def test_cases_that_no_kernel_takes_are_not_called_right(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtfast.check.run.why_untaken", lambda problem: "no compiled kernel for this: no luck")
    assert main(["check", "--op", "rotary_embedding", "--dtype", "float32"]) == 1
    captured = capsys.readouterr()
    assert "3 cases left out: no compiled kernel for this: no luck" in captured.err
    assert captured.out.splitlines()[1].split()[2:] == ["3", "3", "-", "-", "-", "-", "-", "no", "kernel"]
    assert captured.out.endswith("no case was checked: no kernel takes them\n")


def test_json_knows_no_infinity() -> None:
    missing = Row("d_x", "float32", math.inf, 0.0, 0.0, None, None, None, "no gradient came")
    report = Report("rotary_embedding", 0, (missing,), ())
    outcome = Outcome("rotary_embedding", "float32", 0, 0, "cpu", "", 0.1, report, None)
    found = json.loads(json.dumps(as_json([outcome]), allow_nan=False))
    assert found["rows"][0]["worst"] == found["cases"][0]["report"]["rows"][0]["error"] == "inf"
    assert found["passed"] is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--op", "attention"], "--op must be among grid_attention, "),
        (["--case", "-1"], "--case must be at least 0, got -1"),
        (["--case", "1", "--exhaustive"], "--case does not go with --exhaustive"),
    ],
)
def test_requests_that_cannot_be_carried_out(options: list[str], message: str, capsys: Capture) -> None:
    assert main(["check", *options]) == 2
    assert message in capsys.readouterr().err


def test_without_kernels_there_is_nothing_to_check(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtfast._library.why_unavailable", lambda device: "nothing was compiled")
    assert main(["check"]) == 2
    assert capsys.readouterr().err == "vtfast: error: there are no compiled kernels to check: nothing was compiled\n"
