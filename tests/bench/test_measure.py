import math
import os
import subprocess
import sys

import pytest
import torch

from benchmarks import allocator
from benchmarks.measure import Case, Effort, NotSupportedError, Timing, Way, interleave, relative_error, run_case
from benchmarks.report import tabulate
from benchmarks.shapes import SWIN3D_T_WINDOWS

ONE_ROUND = Effort(seconds=0.0, min_rounds=1, max_rounds=1)
RIGHT = torch.tensor([1.0, 2.0])


def way(name: str, result: torch.Tensor = RIGHT) -> Way:
    return Way(name, lambda: result, lambda out: (out,))


def case(*ways: Way) -> Case:
    return Case("case", lambda: ways, lambda: (RIGHT,), tolerance=1e-3)


def ratios(*ways: Way) -> dict[str, float | None]:
    measured = case(*ways)
    section = tabulate("title", "notes", [(measured, run_case(measured, ONE_ROUND))])
    return section.data[0]["ratios"]


class TestRatios:
    def test_are_given_when_both_agree(self):
        assert ratios(way("eager"), way("vtfast"))["x eager"] > 0

    @pytest.mark.parametrize("wrong", [RIGHT + 0.1, RIGHT * math.nan, RIGHT[:1]], ids=["value", "nan", "shape"])
    @pytest.mark.parametrize("who", ["eager", "vtfast"])
    def test_are_refused_when_a_result_differs(self, who, wrong):
        ways = {"eager": way("eager"), "vtfast": way("vtfast")} | {who: way(who, wrong)}
        assert ratios(*ways.values())["x eager"] is None

    def test_best_peer_is_a_right_one_other_than_eager(self):
        found = ratios(way("eager"), way("SDPA", RIGHT + 1), way("compile"), way("vtfast"))
        assert found["x best peer"] == found["x compile"]

    def test_a_rate_is_refused_when_the_result_differs(self):
        wrong = Case("case", lambda: [way("vtfast", RIGHT + 1)], lambda: (RIGHT,), tolerance=1e-3, flops=1)
        (entry,) = tabulate("title", "notes", [(wrong, run_case(wrong, ONE_ROUND))]).data
        assert "GFLOP/s" not in entry["ratios"]

    def test_a_wrong_result_is_marked_in_the_table(self):
        measured = case(way("eager", RIGHT + 1), way("vtfast"))
        section = tabulate("title", "notes", [(measured, run_case(measured, ONE_ROUND))])
        assert "DIFFERS: 5.0e-01" in section.rows[0][1]

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
    script = "from benchmarks.allocator import keeps_pages; print(keeps_pages())"
    env = allocator.environment(name) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], env=env, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(name == "kept")
