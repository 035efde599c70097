import json
from pathlib import Path

import pytest
from planted_results import record, result, results

from vtfast.cli import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "new.json"
    results(record(result("vtfast", 0.1))).save(path)
    return path


def test_a_page_in_the_working_folder(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(file)]) == 0
    assert capsys.readouterr().out == "report.html\n"
    assert "<h2" in (tmp_path / "report.html").read_text()


def test_markdown_alone_and_both(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(file), "--markdown", "a/b.md", "--title", "My <machine>"]) == 0
    assert (tmp_path / "a/b.md").read_text().startswith(r"# My \<machine\>")
    assert not (tmp_path / "report.html").exists()
    assert main(["report", str(file), "--markdown", "b.md", "--output", "b/b.html"]) == 0
    assert (tmp_path / "b.md").exists()
    assert (tmp_path / "b/b.html").exists()


def test_a_check_is_shown(file: Path, tmp_path: Path) -> None:
    row = {
        "op": "window_attention", "dtype": "float32", "cases": 4, "untaken": 1, "worst": "inf", "failed": 1,
        "repeatable": True, "opcheck": None, "gradcheck": None, "others": True, "passed": False,
    }  # fmt: skip
    case = {"op": "window_attention", "dtype": "float32", "settings": "s", "command": "vtfast check --op x"}
    found = {"format": 1, "facts": {"torch": "2.13"}, "passed": False, "rows": [row]}
    cases = [case | {"passed": False}, case | {"passed": True, "command": "vtfast check --op fine"}]
    check = tmp_path / "check.json"
    check.write_text(json.dumps(found | {"cases": cases}))
    page = tmp_path / "page.html"
    assert main(["report", str(file), "--check", str(check), "--output", str(page)]) == 0
    text = page.read_text()
    assert "<td>inf</td><td>ok</td><td>-</td><td>-</td><td>ok</td><td>1 FAILED</td>" in text
    assert "vtfast check --op x" in text
    assert "vtfast check --op fine" not in text


@pytest.mark.parametrize("content", ["", "[]", '{"format": 7}'])
def test_files_that_are_something_else(content: str, file: Path, tmp_path: Path, capsys: Capture) -> None:
    other = tmp_path / "other.json"
    other.write_text(content)
    assert main(["report", str(other)]) == 2
    assert "other.json is no file of results" in capsys.readouterr().err
    assert main(["report", str(file), "--check", str(other)]) == 2
    assert "other.json is no file of vtfast check" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "none.json")]) == 2
