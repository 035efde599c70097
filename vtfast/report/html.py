"""A document as one HTML page that needs nothing else: no network, no script, plots inside."""

from collections.abc import Iterator
from html import escape
from importlib.resources import files

from vtfast.report.document import Document, Part, Picture, Section, Table, Text
from vtfast.report.plotting import svg

__all__ = ["as_html"]


def as_html(document: Document) -> str:
    """The page.

    Raises:
        ImportError: there are plots, and matplotlib is not installed.
    """
    return "\n".join(_page(document))


def _page(document: Document) -> Iterator[str]:
    title = escape(document.title)
    yield "<!DOCTYPE html>"
    yield '<html lang="en">'
    yield f'<head>\n<meta charset="utf-8">\n<title>{title}</title>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<style>\n{files('vtfast.report').joinpath('page.css').read_text()}</style>\n</head>"
    yield f"<body>\n<header>\n<h1>{title}</h1>\n<p>{escape(document.lead)}</p>\n</header>"
    yield '<nav aria-label="Contents">\n<ol>'
    for number, section in enumerate(document.sections, start=1):
        yield f'<li><a href="#{_anchor(str(number))}">{escape(section.title)}</a></li>'
    yield "</ol>\n</nav>\n<main>"
    for number, section in enumerate(document.sections, start=1):
        yield from _section(section, str(number), 2)
    yield "</main>\n</body>\n</html>\n"


def _section(section: Section, number: str, level: int) -> Iterator[str]:
    anchor = _anchor(number)
    yield f'<section aria-labelledby="{anchor}">\n<h{level} id="{anchor}">{escape(section.title)}</h{level}>'
    for part in section.parts:
        yield from _part(part)
    for place, inner in enumerate(section.sections, start=1):
        yield from _section(inner, f"{number}-{place}", level + 1)
    yield "</section>"


def _anchor(number: str) -> str:
    return f"section-{number}"


def _part(part: Part) -> Iterator[str]:
    if isinstance(part, Text):
        yield f"<p>{escape(part.text)}</p>"
    elif isinstance(part, Table):
        yield from _table(part)
    else:
        yield from _picture(part)


def _picture(picture: Picture) -> Iterator[str]:
    # What scrolls has to be reached by keyboard too.
    yield f'<figure>\n<div class="scroll plot" tabindex="0" role="group" aria-label="{escape(picture.title)}">'
    yield svg(picture)
    yield f"</div>\n<figcaption>{escape(picture.caption)}</figcaption>\n</figure>"


def _table(table: Table) -> Iterator[str]:
    head, *rows = table.rows
    kind = ' class="words"' if table.words else ""
    yield f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(table.caption)}">'
    yield f"<table{kind}>\n<caption>{escape(table.caption)}</caption>\n<thead>"
    yield _row(*(f'<th scope="col">{escape(cell)}</th>' for cell in head))
    yield "</thead>\n<tbody>"
    for first, *others in rows:
        yield _row(f'<th scope="row">{escape(first)}</th>', *(f"<td>{escape(cell)}</td>" for cell in others))
    yield "</tbody>\n</table>\n</div>"


def _row(*cells: str) -> str:
    return f"<tr>{''.join(cells)}</tr>"
