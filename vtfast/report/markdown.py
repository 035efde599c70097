"""A document as Markdown, with its plots as PNG files in a folder beside it."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from vtfast.bench.table import as_markdown
from vtfast.report.document import Document, Part, Picture, Section, Table, Text
from vtfast.report.plotting import png

__all__ = ["write_markdown"]


def write_markdown(document: Document, path: Path) -> None:
    """Writes the text to `path` and the plots to the folder `<stem>_plots` beside it.

    Raises:
        ImportError: there are plots, and matplotlib is not installed.
        OSError: a file cannot be written.
    """
    folder = path.with_name(f"{path.stem}_plots")
    for picture in document.pictures():
        content = png(picture)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{picture.name}.png").write_bytes(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(_blocks(document, quote(folder.name))) + "\n")


def _blocks(document: Document, folder: str) -> Iterator[str]:
    yield f"# {_plain(document.title)}"
    yield _plain(document.lead)
    for section in document.sections:
        yield from _section(section, folder, 2)


def _section(section: Section, folder: str, level: int) -> Iterator[str]:
    yield f"{'#' * level} {_plain(section.title)}"
    for part in section.parts:
        yield from _part(part, folder)
    for inner in section.sections:
        yield from _section(inner, folder, level + 1)


def _part(part: Part, folder: str) -> Iterator[str]:
    if isinstance(part, Text):
        yield _plain(part.text)
    elif isinstance(part, Table):
        yield f"{_plain(part.caption)}:"
        yield as_markdown([[_plain(cell) for cell in row] for row in part.rows])
    else:
        yield from _picture(part, folder)


def _picture(picture: Picture, folder: str) -> Iterator[str]:
    yield f"![{_plain(picture.title)}]({folder}/{picture.name}.png)"
    yield _plain(picture.caption)


def _plain(text: str) -> str:
    """The text on one line, with nothing that Markdown or HTML would take for markup."""
    return re.sub(r"([\\`*\[\]<>&|#~])", r"\\\1", " ".join(text.split()))
