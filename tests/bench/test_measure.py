import math
import os
import subprocess
import sys

import pytest
import torch

from vtfast.bench import allocator
from vtfast.bench.measure import Case, Effort, NotSupportedError, Timing, Way, interleave, relative_error, run_case
from vtfast.bench.results import Record
from vtfast.bench.shapes import SWIN3D_T_WINDOWS
from vtfast.bench.table import table

ONE_ROUND = Effort(seconds=0.0, min_rounds=1, max_rounds=1)
RIGHT = torch.tensor([1.0, 2.0])


def way(name: str, result: torch.Tensor = RIGHT) -> Way:
    return Way(name, lambda: result, lambda out: (out,))


def case(*ways: Way) -> Case:
    return Case("case", lambda: ways, lambda: (RIGHT,), tolerance=1e-3)


def record(*ways: Way) -> Record:
    results = tuple(run_case(case(*ways), ONE_ROUND))
    return Record("op", "op", "size", "grid=1x1x1", "float32", "forward", flops=1, results=results)


class TestRatios:
    def test_are_given_when_both_agree(self):
        assert record(way("eager"), way("vtfast")).speedup("eager") > 0

    @pytest.mark.parametrize("wrong", [RIGHT + 0.1, RIGHT * math.nan, RIGHT[:1]], ids=["value", "nan", "shape"])
    @pytest.mark.parametrize("who", ["eager", "vtfast"])
    def test_are_refused_when_a_result_differs(self, who, wrong):
        ways = {"eager": way("eager"), "vtfast": way("vtfast")} | {who: way(who, wrong)}
        assert record(*ways.values()).speedup("eager") is None

    def test_the_best_peer_is_a_right_one(self):
        found = record(way("SDPA", RIGHT + 1), way("compile"), way("vtfast"), way("vtfast compiled"))
        assert found.best_peer().way == "compile"

    def test_a_share_of_a_ceiling_is_refused_when_the_result_differs(self):
        right, wrong = record(way("vtfast")), record(way("vtfast", RIGHT + 1))
        assert right.share_of_limit({"GEMM float32": 1e9})[0] == "GEMM float32"
        assert wrong.share_of_limit({"GEMM float32": 1e9}) is None

    def test_a_wrong_result_is_marked_in_the_table(self):
        columns, row = table([record(way("eager", RIGHT + 1), way("vtfast"))], {})
        assert "DIFFERS: 5.0e-01" in row[columns.index("eager, ms")]
        assert "x eager" not in columns

    def test_one_output_may_be_held_to_another_tolerance(self):
        ways = [Way("vtfast", lambda: None, lambda _: (RIGHT, RIGHT + 0.1))]
        strict = Case("case", lambda: ways, lambda: (RIGHT, RIGHT), tolerance=(1e-3, 1e-3))
        loose = Case("case", lambda: ways, lambda: (RIGHT, RIGHT), tolerance=(1e-3, 1e-1))
        assert [run_case(c, ONE_ROUND)[0].agrees for c in (strict, loose)] == [False, True]


class TestRounds:
    def test_ways_take_turns_and_each_starts_a_round(self):
        calls = []
        ways = [Way(name, lambda name=name: calls.append(name)) for name in "ab"]
        times = interleave(ways, Effort(seconds=0.0, min_rounds=3, max_rounds=9), threads=torch.get_num_threads())
        assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
        assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3}

    def test_threads_are_set_for_a_way_and_put_back(self):
        before, seen = torch.get_num_threads(), []
        ways = [Way("one", lambda: seen.append(torch.get_num_threads()), threads=1), Way("vtfast", lambda: None)]
        run_case(Case("case", lambda: ways), ONE_ROUND)
        assert set(seen) == {1}
        assert torch.get_num_threads() == before

    def test_a_way_that_cannot_do_the_case_is_noted(self):
        def refuse():
            raise NotSupportedError("no backward")

        results = run_case(case(Way("FlexAttention", refuse, lambda out: (out,)), way("vtfast")), ONE_ROUND)
        assert (results[0].timing, results[0].note, results[1].agrees) == (None, "no backward", True)

    def test_quartiles(self):
        timing = Timing.of([3.0, 1.0, 2.0, 5.0, 4.0])
        assert (timing.low, timing.median, timing.high, timing.rounds, timing.spread) == (2.0, 3.0, 4.0, 5, 2 / 3)


@pytest.mark.parametrize(
    ("value", "expected"), [(RIGHT, 0.0), (RIGHT + 0.5, 0.25), (RIGHT.bfloat16(), 0.0)], ids=["same", "off", "dtype"]
)
def test_relative_error(value, expected):
    assert relative_error(value, RIGHT) == expected


def test_shapes_of_swin3d_t():
    assert [shape.num_groups for shape in SWIN3D_T_WINDOWS] == [64, 64, 16, 16, 4, 4, 1]
    assert [shape.shift for shape in SWIN3D_T_WINDOWS][::2] == [(0, 0, 0)] * 4
    assert SWIN3D_T_WINDOWS[1].shift == (0, 3, 3)
    assert SWIN3D_T_WINDOWS[0].product_flops == 2 * 64 * 3 * 392 * 392 * 32


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the setting is glibc's")
@pytest.mark.parametrize("name", allocator.ALLOCATORS)
def test_allocator_is_what_its_name_says(name):
    if "glibc" not in os.confstr("CS_GNU_LIBC_VERSION") or "LD_PRELOAD" in os.environ:
        pytest.skip("another allocator is in force")
    script = "from vtfast.bench.allocator import keeps_pages; print(keeps_pages())"
    env = allocator.environment(name) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], env=env, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(name == "kept")
