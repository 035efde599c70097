import json
import re
import shutil
from pathlib import Path

import pytest

from benchmarks.figures import Cell, FigureError, Library, Sentence, Table, Work
from benchmarks.measured import FIGURES
from benchmarks.quantities import over, share_of_limit, time
from benchmarks.readme import README, RESULTS, differences, main, rewritten
from vtfast.bench.measure import Result, Timing
from vtfast.bench.results import Record, Results, Run

WORK = Work("here", "ops", "window_attention", "grid=8x56x56,num_heads=3")


def result(way: str, seconds: float, agrees: bool | None = True, spread: float = 0.0) -> Result:
    half = seconds * spread / 2
    return Result(way, Timing(seconds, seconds - half, seconds + half, 9), (1e-3,), agrees, flops=10**9)


def save(folder: Path, *results: Result) -> Library:
    record = Record(WORK.subject, "op", "stage 1", WORK.shape, WORK.dtype, WORK.mode, results=results, flops=10**9)
    facts = {"allocator": "default (glibc)"}
    Results([Run(facts, {}, [record])]).save(folder / WORK.machine / f"{WORK.file}.json")
    return Library(folder)


@pytest.fixture(scope="module")
def library() -> Library:
    return Library(RESULTS)


def test_readme_says_what_the_results_say(library: Library) -> None:
    document = README.read_text()
    assert not differences(document, rewritten(document, library)), "run python -m benchmarks.readme"


def test_no_figure_of_the_section_is_typed_by_hand() -> None:
    section = re.search(r"^## Measured\n(.*?)^## ", README.read_text(), re.DOTALL | re.MULTILINE)
    assert section is not None
    prose = re.sub(r"<!-- figures: .*?<!-- end -->|`[^`]*`|\([^()]*\.(?:md|png)\)", "", section[1], flags=re.DOTALL)
    assert not re.findall(r"\b\d.*", prose)


def test_every_digit_of_a_figure_counts(library: Library) -> None:
    document = README.read_text()
    for name, text in re.findall(r"<!-- figures: ([\w-]+) -->\n(.*?)<!-- end -->", document, re.DOTALL):
        changed = re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), text, count=1)
        assert changed != text, f"{name} has no figure"
        assert differences(document.replace(text, changed), document) == [name]


def test_check_fails_where_a_result_is_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results"
    shutil.copytree(RESULTS, results)
    assert main(["--check", "--results", str(results)]) == 0
    works = [work for row in FIGURES["swin3d_t"].rows.values() for work in row]  # type: ignore[attr-defined]
    _, record = Library(results).find(works[0])
    path = results / works[0].machine / f"{works[0].file}.json"
    median = record.judged.timing.median  # type: ignore[union-attr]
    path.write_text(path.read_text().replace(json.dumps(median), json.dumps(median * 1.5)))
    assert main(["--check", "--results", str(results)]) == 1
    assert "swin3d_t" in capsys.readouterr().err


def test_writing_mends_a_document_and_leaves_the_rest(tmp_path: Path) -> None:
    document, good = tmp_path / "README.md", README.read_text()
    first = good.index("<!-- figures:")
    at = re.compile(r"\d").search(good, good.index("-->", first))
    assert at is not None
    document.write_text(good[: at.start()] + str((int(at[0]) + 1) % 10) + good[at.end() :])
    assert main(["--check", "--document", str(document)]) == 1
    assert main(["--document", str(document)]) == 0
    assert document.read_text() == good
    assert main(["--check", "--document", str(document)]) == 0


def test_markers_and_definitions_belong_together(tmp_path: Path) -> None:
    library = save(tmp_path, result("vtfast", 0.1))
    figures = {"known": Sentence("{time}", {"time": Cell(time(), [WORK])})}
    marked = "before\n<!-- figures: {} -->\nold\n<!-- end -->\nafter\n"
    assert "**100 ms**" in rewritten(marked.format("known"), library, figures)
    with pytest.raises(FigureError, match=r"without definition: \['other'\], without marker: \['known'\]"):
        rewritten(marked.format("other"), library, figures)
    with pytest.raises(FigureError, match="stand once"):
        rewritten(marked.format("known") * 2, library, figures)
    with pytest.raises(FigureError, match="stand once"):
        rewritten(marked.format("known").replace("<!-- end -->", ""), library, figures)


def test_missing_records_and_ways_are_named(tmp_path: Path) -> None:
    library = save(tmp_path, result("vtfast", 0.1))
    figures = {"known": Table("", {"eager": time("eager")}, {"forward": [WORK]})}
    with pytest.raises(FigureError, match=r"known: window_attention, grid=8x56x56,num_heads=3, float32.*eager was not"):
        rewritten("<!-- figures: known -->\n<!-- end -->\n", library, figures)
    elsewhere = Work("here", "ops", "window_attention", "grid=8x7x7,num_heads=24")
    with pytest.raises(FigureError, match=r"grid=8x7x7,num_heads=24.* in here/ops.json: .* found 0"):
        time().text(library, [elsewhere])
    with pytest.raises(FigureError, match="kept allocator, found 0"):
        over("eager", "kept").text(library, [WORK])
    with pytest.raises(FigureError, match=r"there/ops\.json"):
        time().text(library, [Work("there", "ops", "window_attention", "")])


def test_results_that_differ_are_not_shown(tmp_path: Path) -> None:
    library = save(tmp_path, result("eager", 0.3, agrees=False), result("vtfast", 0.1))
    for quantity in (time("eager"), over("eager")):
        with pytest.raises(FigureError, match="eager DIFFERS"):
            quantity.text(library, [WORK])
    library = save(tmp_path, result("eager", 0.3), result("vtfast", 0.1, agrees=False))
    with pytest.raises(FigureError, match="both results must be right"):
        over("eager").text(library, [WORK])


def test_noise_is_shown_where_it_would_decide(tmp_path: Path) -> None:
    close = save(tmp_path / "close", result("eager", 0.102, spread=0.1), result("vtfast", 0.1, spread=0.04))
    assert over("eager").text(close, [WORK, WORK]) == "1.02 ± 0.07 / 1.02 ± 0.07 x"
    clear = save(tmp_path / "clear", result("eager", 0.2, spread=0.1), result("vtfast", 0.1, spread=0.04))
    assert over("eager").text(clear, [WORK]) == "2.00 x"


def test_share_of_the_limit_names_the_ceiling(tmp_path: Path) -> None:
    library = save(tmp_path, result("vtfast", 0.1), result("GEMM float32", 0.05, agrees=None))
    assert share_of_limit().text(library, [WORK]) == "50 % (GEMM)"
    with pytest.raises(FigureError, match="no ceiling"):
        share_of_limit().text(save(tmp_path, result("vtfast", 0.1)), [WORK])
