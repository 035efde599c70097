"""`vtfast models`: the models that `run` knows, with their published clips."""

import argparse
import json
from dataclasses import asdict
from typing import Any

from vtfast.cli.errors import UserError
from vtfast.models import list_models, model_config

__all__ = ["add_command", "models"]


def add_command(commands: Any) -> None:
    """Adds the command to the sub-parsers of `vtfast`."""
    parser = commands.add_parser("models", help="list the models", description="Lists models and their clips.")
    parser.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="shell pattern, such as 'swin3d_*'")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.set_defaults(command=models)


def models(args: argparse.Namespace) -> int:
    """Carries out the command and returns the exit status."""
    configs = [model_config(name) for name in list_models(args.pattern)]
    if not configs:
        raise UserError(f"PATTERN must match a model, got {args.pattern!r}; there are {', '.join(list_models())}")
    if args.json:
        for config in configs:
            row = {"name": config.name, "num_classes": config.num_classes}
            print(json.dumps({**row, "preprocessing": asdict(config.preprocessing)}))
        return 0
    width = max(len(config.name) for config in configs)
    print(f"{'model':<{width}}  classes  frames x stride  short side -> crop")
    for config in configs:
        clip = config.preprocessing
        sampling, resize = f"{clip.frames} x {clip.stride}", f"{clip.short_side} -> {clip.crop}"
        print(f"{config.name:<{width}}  {config.num_classes:>7}  {sampling:>15}  {resize:>18}")
    return 0
