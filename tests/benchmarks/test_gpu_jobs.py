import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu.jobs import natively, read, reason
from vtfast import ops
from vtfast.bench.measure import Way

# A module of jobs as `python -m` runs it.
MODULE = """
import os, sys, time
import torch
from benchmarks.gpu.jobs import Job, main
from vtfast.bench.measure import Case, Effort, Way

RIGHT = torch.tensor([1.0, 2.0])

def refuse():
    raise RuntimeError("no such kernel\\nand more")

WORK = {
    "first": lambda: RIGHT,
    "crash": lambda: os._exit(3),
    "hang": lambda: time.sleep(60),
    "refuse": refuse,
    "wrong": lambda: RIGHT + 1,
    "last": lambda: RIGHT,
}

def jobs(device, quick):
    def job(name, run):
        ways = lambda: [Way("eager", lambda: RIGHT, lambda out: (out,)), Way("vtfast", run, lambda out: (out,))]
        case = Case(name, ways, lambda: (RIGHT,), 1e-3, facts={"quick": quick})
        return Job(case, Effort(0.0, 1, 1), limit=1.0 if name == "hang" else 20.0)
    return [job(name, run) for name, run in WORK.items()]

sys.exit(main(jobs))
"""

Records = dict[str, dict[str, Any]]


def run(folder: Path, module: str, *flags: str) -> tuple[int, Records]:
    (folder / "planted_jobs.py").write_text(module)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    output = folder / "records.jsonl"
    command = [sys.executable, "-m", "planted_jobs", "--device", "cpu", "--output", str(output), *flags]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    return done.returncode, {record["case"]: record for record in read(output)}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Records]:
    return run(tmp_path_factory.mktemp("jobs"), MODULE)


def test_a_case_that_takes_its_process_along_stops_no_other(planted):
    status, records = planted
    notes = {name: record["note"] for name, record in records.items() if record["state"] == "failed"}
    assert status == 1
    assert notes == {"crash": "the process ended with status 3", "hang": "took too long"}
    assert {record["state"] for name, record in records.items() if name not in notes} == {"done"}


def test_a_way_that_raises_is_refused_and_the_others_are_measured(planted):
    eager, vtfast = planted[1]["refuse"]["results"]
    assert (vtfast["timing"], vtfast["note"]) == (None, "refused: no such kernel")
    assert eager["timing"]["rounds"] == 1


def test_a_wrong_result_is_kept_as_wrong(planted):
    assert [result["agrees"] for result in planted[1]["wrong"]["results"]] == [True, False]


def test_no_case_starts_when_the_time_is_up(tmp_path):
    status, records = run(tmp_path, MODULE, "--seconds", "-1", "--quick")
    assert (status, {record["state"] for record in records.values()}) == (0, {"not reached"})
    assert records["last"]["facts"] == {"quick": True}


def test_a_module_that_never_comes_to_a_case_fails(tmp_path):
    assert run(tmp_path, MODULE.replace("    return [job", "    os.abort(), [job")) == (1, {})


def test_the_last_record_of_a_case_counts(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text("".join(json.dumps({"case": "a", "state": state}) + "\n" for state in ("started", "done")))
    assert [record["state"] for record in read(path)] == ["done"]


def test_the_reason_leaves_out_what_was_not_asked_for():
    said = [
        "Flash attention kernel not used because: (Triggered internally at somewhere.cpp:1)",
        "Flash attention has been runtime disabled. (Triggered internally at somewhere.cpp:2)",
        "Mask must be contiguous (Triggered internally at somewhere.cpp:3)",
    ]
    assert reason(RuntimeError("No available kernel.\nAborting"), said) == (
        "refused: No available kernel.; Mask must be contiguous"
    )


def test_natively_never_answers_with_the_reference():
    qkv = torch.zeros(1, 1, 2, 2, 24, device="meta")
    way = natively(Way("vtfast", lambda: ops.grid_attention(qkv, (1, 2, 2), num_heads=1, block=(1, 2, 2))))
    with pytest.raises(RuntimeError, match="no compiled kernel"):
        way.run()
