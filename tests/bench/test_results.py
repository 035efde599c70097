import json

import pytest
from planted_results import CEILINGS, record, result, results, run

from vtfast.bench.results import Results


def test_what_is_saved_is_loaded(tmp_path):
    kept = results(
        record(result("eager", None, None, note="no backward"), result("vtfast", 0.1, peak_bytes=3, sdpa="math")),
        record(result("vtfast", 0.2, False), sweep="frames", at=8, exps=7, sums="float32"),
    )
    kept.save(tmp_path / "folder" / "results.json")
    assert Results.load(tmp_path / "folder" / "results.json") == kept
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["results.json"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 2, "runs": []}', '{"runs": []}'])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"other\.json is no file of results"):
        Results.load(path)


def test_measuring_again_replaces_what_was_measured_and_nothing_else():
    backward = {"mode": "forward + backward"}
    kept = results(record(result("vtfast", 1.0)), record(result("vtfast", 2.0), **backward))
    other = run(record(result("vtfast", 9.0)), allocator="kept (libc, keeps freed pages)")
    kept.runs.append(other)
    again = run(record(result("vtfast", 0.5)))
    for _ in range(2):  # as after every case of a run
        kept.add(again)
    assert [record.seconds for run in kept.runs for record in run.records] == [2.0, 9.0, 0.5]
    again.records.append(record(result("vtfast", 1.5), **backward))
    kept.add(again)
    assert [len(run.records) for run in kept.runs] == [1, 2]
    assert [found.seconds for _, found in kept.find(subject="window_attention", mode="forward")] == [0.5]
    assert [found.seconds for _, found in kept.find("kept")] == [9.0]


def test_the_limit_is_the_ceiling_that_takes_longest():
    found = record(result("vtfast", 0.02), flops=10**9, fewest_bytes=10**7, exps=5 * 10**8)
    assert found.limit(CEILINGS) == ("exp", 0.05)
    assert found.share_of_limit(CEILINGS) == ("exp", 2.5)
    assert record(result("vtfast", 0.02, False)).share_of_limit(CEILINGS) is None
    assert record(result("vtfast", 0.02)).limit({}) is None


def test_a_yardstick_of_the_same_rounds_comes_before_the_ceiling_of_the_run():
    gemm = result("GEMM float32", 0.1, None, flops=10**9)  # a tenth of the ceiling: the machine was busy
    assert record(gemm, result("vtfast", 0.2)).limit(CEILINGS) == ("GEMM float32", 0.1)


def test_sums_of_another_dtype_have_its_ceiling():
    found = record(result("vtfast", 0.02), dtype="bfloat16", sums="float32", fewest_bytes=None)
    assert found.limit(CEILINGS) == ("GEMM float32", 0.01)


def test_the_file_holds_nothing_that_says_nothing(tmp_path):
    results(record(result("vtfast", 0.1))).save(tmp_path / "results.json")
    (fields,) = json.loads((tmp_path / "results.json").read_text())["runs"][0]["records"]
    assert "sweep" not in fields
    assert set(fields["results"][0]) == {"way", "timing", "errors", "agrees"}
