"""Writes README's figures from the committed results: `python -m benchmarks.readme`, or `--check` to compare only.

A figure stands between `<!-- figures: NAME -->` and `<!-- end -->`; `measured.py` says what NAME is.
"""

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.figures import Figure, FigureError, Library
from benchmarks.measured import FIGURES

ROOT = Path(__file__).parents[1]
README, RESULTS = ROOT / "README.md", ROOT / "benchmarks" / "results"

_MARKED = re.compile(r"(<!-- figures: ([\w-]+) -->\n)(.*?)(<!-- end -->\n)", re.DOTALL)


def rewritten(document: str, library: Library, figures: Mapping[str, Figure] = FIGURES) -> str:
    """The document with its figures from the results.

    Raises:
        FigureError: a figure cannot be had, a marker has no definition, or a definition no marker.
    """
    names = [match[2] for match in _MARKED.finditer(document)]
    broken = document.count("<!-- figures:") != len(names) or document.count("<!-- end -->") != len(names)
    unknown, unused = [name for name in names if name not in figures], [name for name in figures if name not in names]
    if broken or unknown or unused or len(set(names)) != len(names):
        raise FigureError(
            f"every figure must stand once between its marker and the end, got without definition: {unknown}, without"
            f" marker: {unused}, in all: {names}"
        )
    return _MARKED.sub(lambda match: f"{match[1]}\n{_text(match[2], figures, library)}\n\n{match[4]}", document)


def _text(name: str, figures: Mapping[str, Figure], library: Library) -> str:
    try:
        return figures[name].text(library)
    except FigureError as error:
        raise FigureError(f"{name}: {error}") from error


def differences(document: str, other: str) -> list[str]:
    """The names of the figures that are not the same in both."""
    others = {match[2]: match[3] for match in _MARKED.finditer(other)}
    return [match[2] for match in _MARKED.finditer(document) if others.get(match[2]) != match[3]]


def main(arguments: list[str] | None = None) -> int:
    """Carries out the command and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; the exit status is 1 if figures differ")
    parser.add_argument("--document", type=Path, default=README, metavar="FILE", help="default: README.md")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="default: benchmarks/results")
    args = parser.parse_args(arguments)
    before = args.document.read_text()
    try:
        after = rewritten(before, Library(args.results))
    except FigureError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    changed = differences(before, after)
    if not args.check:
        args.document.write_text(after)
    elif changed:
        print(f"error: {args.document.name} does not say what the results do: {', '.join(changed)}", file=sys.stderr)
        return 1
    print(f"{len(FIGURES)} figures, {len(changed)} {'differ' if args.check else 'changed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
