"""The page and the Markdown, with every plot drawn once."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from vtfast.bench.results import Results
from vtfast.report import Machine, as_html, report, write_markdown
from vtfast.report.document import Document, Picture, Section

pytest.importorskip("matplotlib")

TITLES = [
    "Machine and versions", "Speed-ups", "Roofline", "Share of the limiting ceiling", "Scaling", "Memory",
    "Correctness", "All ways",
]  # fmt: skip


class Reader(HTMLParser):
    """What a page refers to and holds."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "data", "srcset"):
                self.links.append(value or "")


@pytest.fixture(scope="module")
def page(machine: Machine) -> str:
    return as_html(report([machine]))


@pytest.fixture(scope="module")
def reader(page: str) -> Reader:
    return Reader(page)


def test_every_section_is_there_and_in_the_contents(page: str) -> None:
    assert re.findall(r"<h2[^>]*>([^<]*)</h2>", page) == TITLES
    assert re.findall(r'<li><a href="#[^"]*">([^<]*)</a>', page) == TITLES


def test_the_page_needs_nothing_else(page: str, reader: Reader) -> None:
    assert "script" not in reader.tags
    assert not {"link", "iframe", "object", "img"} & set(reader.tags)
    assert all(link.startswith("#") for link in reader.links)
    assert "@import" not in page
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))


def test_names_are_unique_and_found(page: str, reader: Reader) -> None:
    assert len(reader.ids) == len(set(reader.ids))
    assert {link[1:] for link in reader.links} <= set(reader.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", page)) <= set(reader.ids)


def test_plots_have_titles_and_text(page: str, reader: Reader) -> None:
    plots = reader.tags.count("svg")
    assert plots >= 7
    assert len(re.findall(r'<svg role="img" aria-labelledby="([^"]*)"[^>]*>\n<title id="\1">', page)) == plots
    assert ">over the best peer</text>" in page


def test_what_comes_from_files_is_text(page: str) -> None:
    assert "alert(1)&lt;/script&gt; | $x$ `y` &amp; [z](http://example.org)" in page
    assert "<script" not in page


def test_a_refused_speed_up_is_nowhere(page: str) -> None:
    # The wrong result was 40000 times as fast.
    assert "refused: no number" in page
    assert "40000" not in page


def test_no_records() -> None:
    assert as_html(report([])).count("The files have no records.") == len(TITLES)
    assert "<svg" not in as_html(report([Machine("nothing", Results())]))


def test_two_machines_are_told_apart(machine: Machine) -> None:
    few = Machine("Other", Results([machine.results.runs[0]]))
    document = report([machine, few])
    names = [picture.name for picture in document.pictures()]
    assert len(names) == len(set(names))
    assert all([inner.title for inner in section.sections][:2] == ["Planted", "Other"] for section in document.sections)


@pytest.fixture(scope="module")
def scaled(machine: Machine) -> Document:
    """One plot, which is enough to see that it is the same twice."""
    document = report([machine])
    picture = next(picture for picture in document.pictures() if "time-frames" in picture.name)
    return Document("One | plot", "", [Section("Only", [picture])])


def test_the_same_input_gives_the_same_bytes(scaled: Document, tmp_path: Path) -> None:
    assert as_html(scaled) == as_html(scaled)
    for name in ("a", "b"):
        write_markdown(scaled, tmp_path / name / "report.md")
    (first, second) = (sorted((tmp_path / name).rglob("*.*")) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert len(first) == 2


def test_markdown_links_exist_and_markup_is_escaped(scaled: Document, machine: Machine, tmp_path: Path) -> None:
    (only,) = scaled.pictures()
    sections = [
        Section(s.title, [*(p for p in s.parts if not isinstance(p, Picture))]) for s in report([machine]).sections
    ]
    path = tmp_path / "my report.md"
    write_markdown(Document("t", "", [*sections, Section("Plot", [only])]), path)
    text = path.read_text()
    (link,) = re.findall(r"!\[.*\]\((.*)\)", text)
    assert link == f"my%20report_plots/{only.name}.png"
    assert (tmp_path / "my report_plots" / f"{only.name}.png").read_bytes().startswith(b"\x89PNG")
    assert all(f"## {title}" in text for title in TITLES)
    assert r"\<script\>alert(1)\</script\> \| $x$ \`y\` \& \[z\](http://example.org)" in text
