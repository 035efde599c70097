"""`vtfast report`: measured results as a page for people."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtfast.cli.errors import as_user_error

if TYPE_CHECKING:
    from vtfast.report.document import Section

__all__ = ["add_command", "report"]

_OUTPUT = Path("report.html")


def add_command(commands: Any) -> None:
    """Adds the command to the sub-parsers of `vtfast`."""
    parser = commands.add_parser(
        "report",
        help="make a page of measured results: plots, tables, machine",
        description="Turns files of results into one HTML page that needs nothing else, or into Markdown with its plots"
        " beside it: speed-ups, roofline, scaling, memory, correctness, and every number.",
    )
    parser.add_argument(
        "results", nargs="+", type=Path, metavar="RESULTS", help="files of vtfast bench --json, or folders of them"
    )
    parser.add_argument("--check", type=Path, metavar="FILE", help="show what vtfast check --json wrote to FILE")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help=f"the page (default: {_OUTPUT}, unless --markdown is given)"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the same as Markdown")
    parser.add_argument("--title", help="of the page")
    parser.add_argument(
        "--predict", action="store_true", help="add what the cost model predicts for GPUs, named as such (a minute)"
    )
    parser.set_defaults(command=report)


def report(args: argparse.Namespace) -> int:
    """Carries out the command and returns the exit status."""
    from vtfast.report import as_html, load, write_markdown
    from vtfast.report import report as put_together
    from vtfast.report.correctness import load_check

    output = args.output or (None if args.markdown else _OUTPUT)
    with as_user_error(ValueError, OSError, ImportError, RuntimeError):
        check = None if args.check is None else load_check(args.check)
        named = {"title": args.title} if args.title else {}
        document = put_together(load(args.results), check=check, further=_predictions(args), **named)
        if output is not None:
            page = as_html(document)
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(page)
            print(output)
        if args.markdown is not None:
            write_markdown(document, args.markdown)
            print(args.markdown)
    return 0


def _predictions(args: argparse.Namespace) -> "list[Section]":
    if not args.predict:
        return []
    from vtfast.plan.study import scaling_study
    from vtfast.report.predictions import section

    return [section(scaling_study())]
