"""What a report consists of, before it is HTML or Markdown."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vtfast.bench.table import Rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Document", "Part", "Picture", "Section", "Table", "Text"]


@dataclass(frozen=True)
class Text:
    """A paragraph, without any markup."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows below the names of the columns.

    Args:
        caption: what it shows.
        rows: the first names the columns.
        words: whether most of it is to be read, rather than compared down a column.
    """

    caption: str
    rows: Rows
    words: bool = False


@dataclass(frozen=True)
class Picture:
    """A plot.

    Args:
        name: of its file, unlike any other of the document.
        title: what it says to who does not see it.
        caption: how it is to be read.
        draw: makes it.
    """

    name: str
    title: str
    caption: str
    draw: "Callable[[], Figure]"


Part = Text | Table | Picture


@dataclass(frozen=True)
class Section:
    """A heading with what is below it.

    Args:
        title: the heading.
        parts: in order.
        sections: with headings of their own, after the parts.
    """

    title: str
    parts: Sequence[Part] = ()
    sections: "Sequence[Section]" = ()


@dataclass(frozen=True)
class Document:
    """All of a report.

    Args:
        title: of the whole.
        lead: what it is, in a paragraph.
        sections: in order.
    """

    title: str
    lead: str
    sections: Sequence[Section]

    def pictures(self) -> Iterator[Picture]:
        """Every plot, in order."""
        for section in self.sections:
            yield from _pictures(section)


def _pictures(section: Section) -> Iterator[Picture]:
    for part in section.parts:
        if isinstance(part, Picture):
            yield part
    for inner in section.sections:
        yield from _pictures(inner)
