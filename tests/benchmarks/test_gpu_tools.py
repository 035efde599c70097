import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import profile, sanitize
from benchmarks.gpu.correctness import summary
from benchmarks.gpu.profile import kernels_of, table_of
from benchmarks.gpu.stages import SKIPPED_STATUS

NCU = """==PROF== Connected to process 7
"ID","Kernel Name","gpu__time_duration.sum","dram__throughput.avg.pct_of_peak_sustained_elapsed",\
"sm__inst_executed_pipe_tensor_op_hmma.avg.pct_of_peak_sustained_active",\
"sm__inst_executed_pipe_tensor_op_imma.avg.pct_of_peak_sustained_active",\
"smsp__average_warps_issue_stalled_barrier_per_issue_active.ratio",\
"smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio",\
"smsp__average_warps_issue_stalled_wait_not_issued_per_issue_active.ratio"
"","","ns","%","%","%","warp","warp","warp"
"0","void vtfast::cuda::forward<float, (int)32>(vtfast::Params)","1,234,500","71.5","30","0","0.5","2.25","9"
"""


class TestNcu:
    def test_kernels(self):
        (kernel,) = kernels_of(NCU)
        assert kernel["dram__throughput.avg.pct_of_peak_sustained_elapsed"] == "71.5"

    def test_text_without_a_table_has_none(self):
        assert kernels_of("==ERROR== no permission") == []

    def test_table(self):
        lines = table_of(kernels_of(NCU)).splitlines()
        assert lines[0] == "|  | 0: forward |"
        assert "| time, us | 1234 |" in lines or "| time, us | 1235 |" in lines
        assert "| tensor pipe, % | 30 |" in lines
        assert "| stall 1, warps waiting per issue | long_scoreboard 2.25 |" in lines
        assert "| stall 3, warps waiting per issue | - |" in lines

    def test_what_a_profiler_exports_is_tabulated(self, monkeypatch, tmp_path):
        table = tmp_path / "table.csv"
        table.write_text(NCU)
        program = tmp_path / "ncu"
        program.write_text(
            f'#!/bin/sh\ncase "$*" in\n*--import*) cat {table} ;;\n'
            "*InstructionStats*bank_conflicts*) echo no such metric; exit 1 ;;\n"
            '*) while [ "$1" != --export ]; do shift; done; touch "$2" ;;\nesac\n'
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        assert profile._look_at(0, "cuda", tmp_path) == table_of(kernels_of(NCU))
        assert (tmp_path / "profile-0.csv").read_text() == NCU

    @pytest.mark.requires_native
    def test_without_counters_torch_says_the_times(self, tmp_path):
        text = profile._look_at(0, "cpu", tmp_path)
        assert "No hardware counters" in text
        assert "vtfast::grid_attention_backward" in text


class TestSanitizer:
    def planted(self, folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
        program = folder / "compute-sanitizer"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def test_without_the_tool_there_is_nothing_to_do(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(sanitize, "_ELSEWHERE", ())
        assert sanitize.main("memcheck", "cuda") == SKIPPED_STATUS
        assert "not installed" in capsys.readouterr().out

    def test_a_device_that_the_tool_refuses(self, monkeypatch, tmp_path, capsys):
        self.planted(tmp_path, monkeypatch, "echo '========= Error: Device not supported'; exit 1")
        assert sanitize.main("memcheck", "cuda") == SKIPPED_STATUS
        assert capsys.readouterr().out.splitlines()[-1] == "========= Error: Device not supported"

    def test_errors_found(self, monkeypatch, tmp_path, capsys):
        self.planted(tmp_path, monkeypatch, "echo '========= ERROR SUMMARY: 3 errors'; exit 99")
        assert sanitize.main("memcheck", "cuda") == 99
        assert capsys.readouterr().out.splitlines()[-1] == "memcheck: ========= ERROR SUMMARY: 3 errors"

    def test_nothing_found(self, monkeypatch, tmp_path):
        self.planted(tmp_path, monkeypatch, "echo '========= ERROR SUMMARY: 0 errors'")
        assert sanitize.main("racecheck", "cuda") == 0


class TestVerdicts:
    def run(self, folder: Path) -> dict:
        (folder / "test_zebra.py").write_text("def test_zebra(): pass\n")
        (folder / "test_library.py").write_text(
            "import pytest\n"
            "def test_good(): pass\n"
            "def test_bad(): assert 1 == 2\n"
            "@pytest.fixture\n"
            "def broken(): raise RuntimeError('in the fixture')\n"
            "def test_error(broken): pass\n"
            "@pytest.mark.skip(reason='no')\n"
            "def test_skipped(): pass\n"
        )
        output = folder / "verdicts.jsonl"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.gpu.verdicts", "--verdicts", str(output)]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([*command, "test_zebra.py", "test_library.py"], cwd=folder, env=env, capture_output=True)
        self.order = [json.loads(line)["test"].split("::")[0] for line in output.read_text().splitlines()]
        return summary(output)

    def test_counts_and_what_was_said(self, tmp_path):
        found = self.run(tmp_path)
        assert found["counts"] == {"passed": 2, "failed": 2, "skipped": 1}
        assert found["failures_by_file"] == {"test_library.py": 2}
        bad, error = found["failures"]
        assert "assert 1 == 2" in bad["why"]
        assert "in the fixture" in error["why"]

    def test_basic_files_come_first(self, tmp_path):
        self.run(tmp_path)
        assert self.order == ["test_library.py"] * 4 + ["test_zebra.py"]

    def test_nothing_ran(self, tmp_path):
        assert summary(tmp_path / "absent.jsonl") == {"counts": {}, "failures": [], "failures_by_file": {}}
