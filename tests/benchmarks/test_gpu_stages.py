import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu.stages import SKIPPED_STATUS, Outcome, Stage, run_stages


def stage(name: str, code: str, limit: float = 30.0, **more: object) -> Stage:
    return Stage(name, [sys.executable, "-c", code], limit, **more)


def run(plan: list[list[Stage]], logs: Path) -> dict[str, Outcome]:
    return {outcome.stage: outcome for outcome in run_stages(plan, logs)}


def test_a_stage_that_fails_stops_no_other(tmp_path):
    plan = [[stage("first", "raise SystemExit('broken')")], [stage("second", "print('fine')")]]
    outcomes = run(plan, tmp_path)
    assert (outcomes["first"].status, outcomes["first"].note) == ("failed", "status 1; broken")
    assert outcomes["second"].status == "ok"
    assert (tmp_path / "second.log").read_text() == "fine\n"


def test_a_stage_beyond_its_limit_ends_with_all_that_it_started(tmp_path):
    child = "import time; time.sleep(0.5); open('alive', 'w'); time.sleep(60)"
    code = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {child!r}], cwd={str(tmp_path)!r})
print("waiting", flush=True)
time.sleep(60)
"""
    begin = time.monotonic()
    outcome = run([[stage("slow", code, limit=0.3)]], tmp_path)["slow"]
    assert (outcome.status, outcome.note) == ("timed out", "after 0 s; waiting")
    assert time.monotonic() - begin < 10
    time.sleep(1.0)
    assert not (tmp_path / "alive").exists()


def test_a_stage_that_ignores_being_asked_to_end_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.gpu.stages._GRACE", 0.2)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    assert run([[stage("deaf", code, limit=0.5)]], tmp_path)["deaf"].status == "timed out"


def test_the_stages_of_a_group_run_side_by_side(tmp_path):
    """Each waits for a file that the other makes."""
    code = """
import pathlib, time
pathlib.Path({mine!r}).touch()
while not pathlib.Path({other!r}).exists():
    time.sleep(0.01)
"""
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    group = [stage("a", code.format(mine=a, other=b)), stage("b", code.format(mine=b, other=a))]
    assert {outcome.status for outcome in run([group], tmp_path).values()} == {"ok"}


def test_a_stage_with_nothing_to_do_says_why(tmp_path):
    code = f"print('no such tool'); raise SystemExit({SKIPPED_STATUS})"
    outcome = run([[stage("tool", code)]], tmp_path)["tool"]
    assert (outcome.status, outcome.note) == ("skipped", "no such tool")


def test_a_stage_that_needs_one_that_failed_is_skipped(tmp_path):
    plan = [
        [stage("build", "raise SystemExit(1)")],
        [stage("tests", "print('ran')", needs=("build",)), stage("other", "", needs=("absent",))],
    ]
    outcomes = run(plan, tmp_path)
    assert (outcomes["tests"].status, outcomes["tests"].note) == ("skipped", "build is not ok")
    assert outcomes["other"].status == "ok"


def test_a_program_that_does_not_exist_is_a_failure(tmp_path):
    outcome = run([[Stage("absent", ["no-such-program"], 5.0)]], tmp_path)["absent"]
    assert outcome.status == "failed"
    assert "no-such-program" in outcome.note


@pytest.mark.parametrize(("elastic", "seconds"), [(True, 30), (False, 10)])
def test_only_an_elastic_stage_gets_what_was_left_over(tmp_path, elastic, seconds):
    quick = stage("quick", "", limit=20.0)
    told = Stage("told", [sys.executable, "-c", "print('{seconds}')"], 10.0, elastic)
    run([[quick], [told]], tmp_path)
    said = int((tmp_path / "told.log").read_text())
    assert seconds - 3 <= said <= seconds


def test_leaving_early_ends_what_runs(tmp_path):
    outcomes = run_stages([[stage("quick", ""), stage("slow", "import time; time.sleep(60)")]], tmp_path)
    assert next(outcomes).stage == "quick"
    begin = time.monotonic()
    outcomes.close()
    assert time.monotonic() - begin < 10


def test_the_limits_of_the_whole_run_stay_under_nine_minutes():
    """With 20 seconds to spare for loading libraries and ending processes."""
    script = """
from pathlib import Path
from benchmarks.gpu.__main__ import _parser, plan
groups = plan(_parser().parse_args([]), Path("scratch"))
print(sum(max(stage.limit for stage in group) for group in groups))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) <= 520
