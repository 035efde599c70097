from pathlib import Path

import pytest
from planted_results import record, result, results

from vtfast.report.sources import load


def measured(seconds: float) -> object:
    return record(result("vtfast", seconds))


def test_a_folder_is_its_files_and_the_last_measurement_counts(tmp_path: Path) -> None:
    results(measured(1.0)).save(tmp_path / "a.json")
    results(measured(2.0)).save(tmp_path / "b.json")
    results(measured(3.0), allocator="kept (libc)").save(tmp_path / "c.json")
    (machine,) = load([tmp_path])
    assert machine.name == "Planted (avx2), 2 cores"
    assert machine.allocators == ["default", "kept"]
    assert [m.record.seconds for m in machine.everything()] == [2.0, 3.0]


def test_machines_are_kept_apart(tmp_path: Path) -> None:
    for name, facts in {"a": {}, "b": {"cores": 64}, "c": {"device": "GPU"}}.items():
        results(measured(1.0), **facts).save(tmp_path / f"{name}.json")
    names = [machine.name for machine in load([tmp_path / f"{name}.json" for name in "abc"])]
    assert names == ["Planted (avx2), 2 cores", "Planted (avx2), 64 cores", "GPU"]


def test_files_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folder without files of results"):
        load([tmp_path])
    (tmp_path / "empty.json").write_text("")
    with pytest.raises(ValueError, match=r"empty\.json is no file of results"):
        load([tmp_path])
