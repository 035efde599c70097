"""The command line `vtfast`: one file a subcommand."""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

import vtfast
from vtfast.cli import attention, bench, check, demo, info, models, plan, report, run
from vtfast.cli.errors import UserError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments, those of the process if None.

    Returns:
        The exit status: 0, or 1 if a video failed or a comparison was out of tolerance, 2 if the request cannot be
        carried out, 130 if it was interrupted.
    """
    args = _parse(argv)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            status: int = args.command(args)
            sys.stdout.flush()
        except UserError as error:
            print(f"vtfast: error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("vtfast: interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:
            # The reader went away (`vtfast run ... | head`). Python would complain again when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
    return status


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    # argparse takes a list of positional arguments only in one piece: `run a.mp4 --top 3 b.mp4` leaves b.mp4 over.
    if rest and (not hasattr(args, "clips") or any(argument.startswith("-") for argument in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        args.clips.extend(rest)
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vtfast", description="Fast video transformers for PyTorch.")
    parser.add_argument("--version", action="version", version=f"vtfast {vtfast.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in (run, attention, demo, info, check, models, bench, plan, report):
        module.add_command(commands)
    return parser


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"vtfast: warning: {message}", file=file or sys.stderr)
