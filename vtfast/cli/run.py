"""`vtfast run`: classes or features of videos, or a comparison of the two backends on them."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtfast.cli.clips import Clip, find_clips
from vtfast.cli.compare import compare_clips
from vtfast.cli.errors import UserError, as_user_error
from vtfast.cli.features import open_features
from vtfast.cli.labels import read_labels
from vtfast.cli.options import (
    LoadedModel,
    add_backend_option,
    add_model_options,
    backend,
    load_model,
    note_random_weights,
    positive_int,
)
from vtfast.cli.progress import Progress
from vtfast.data import VideoError, iter_clips

__all__ = ["add_command", "run"]


def add_command(commands: Any) -> None:
    """Adds the command to the sub-parsers of `vtfast`."""
    parser = commands.add_parser(
        "run",
        help="classify videos, extract features, or compare the backends",
        description="Prints the most likely classes of each video, or writes features. A file that cannot be read is"
        " reported by name and the others go on; the exit status is then 1.",
    )
    parser.add_argument("clips", nargs="+", metavar="CLIP", help="video file, or folder of video files")
    add_model_options(parser)
    add_backend_option(parser)
    parser.add_argument(
        "--views",
        type=_views,
        default=(1, 1),
        metavar="N[xM]",
        help="N clips evenly spread over the video, in M = 1 or 3 crops each; class probabilities are averaged"
        " (default: 1)",
    )
    parser.add_argument("--labels", type=Path, metavar="FILE", help="names of the classes: one a line, or JSON")
    parser.add_argument("--top", type=positive_int, default=5, metavar="N", help="classes to print (default: 5)")
    parser.add_argument(
        "--features",
        type=Path,
        metavar="OUT",
        help="instead of classes write pooled features, one tensor (views, channels) a video: into OUT if that ends"
        " in .safetensors, otherwise one file a video in the folder OUT, where those that exist are skipped",
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="run the middle clip of each video with the compiled kernels and with the reference, and print the"
        " largest difference, times and peak memory; the exit status is 1 if they disagree",
    )
    parser.add_argument("--runs", type=positive_int, default=5, metavar="N", help="timed --compare runs (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Carries out the command and returns the exit status."""
    if args.compare:
        given = {"--views": args.views != (1, 1), "--labels": args.labels, "--features": args.features}
        given["--backend"] = args.backend
        for option, value in given.items():
            if value:
                raise UserError(f"--compare runs one clip a video both ways: {option} does not apply")
    clips = find_clips(args.clips)
    labels = None if args.labels is None else read_labels(args.labels)
    model = load_model(args, num_classes=None if labels is None else len(labels))
    if labels is not None and len(labels) != model.num_classes:
        raise UserError(f"--labels names {len(labels)} classes, the model has {model.num_classes}")
    note_random_weights(model)
    if args.compare:
        return compare_clips(model, clips, runs=args.runs, as_json=args.json)
    with backend(args.backend):
        if args.features is None:
            return _classify(model, clips, args.views, labels, args.top, args.json)
        return _extract(model, clips, args.views, args.features, args.json)


def _classify(
    model: LoadedModel, clips: Sequence[Clip], views: tuple[int, int], labels: list[str] | None, top: int, as_json: bool
) -> int:
    def classify(clip: Clip, logits: Tensor) -> str:  # [V, num_classes]
        scores, classes = logits.double().softmax(dim=-1).mean(dim=0).topk(min(top, logits.shape[-1]))
        ranking = [
            {"class": index, "label": None if labels is None else labels[index], "score": score}
            for index, score in zip(classes.tolist(), scores.tolist(), strict=True)
        ]
        if as_json:
            return json.dumps({"video": str(clip.path), "views": len(logits), "top": ranking})
        lines = (f"  {entry['score']:7.2%}  {entry['label'] or 'class ' + str(entry['class'])}" for entry in ranking)
        return "\n".join((str(clip.path), *lines))

    return _each_clip(model, clips, views, pre_logits=False, report=classify, as_json=as_json)


def _extract(model: LoadedModel, clips: Sequence[Clip], views: tuple[int, int], out: Path, as_json: bool) -> int:
    _require_distinct_names(clips)
    settings = {
        "model": model.name,
        "checkpoint": model.checkpoint.name if model.checkpoint else "random weights, seed 0",
        "dtype": model.dtype_name,
        "views": f"{views[0]}x{views[1]}",
        "frames": str(model.preprocessing.frames),
        "stride": str(model.preprocessing.stride),
        "short_side": str(model.preprocessing.short_side),
        "crop": str(model.preprocessing.crop),
    }
    with open_features(out, settings) as store:

        def keep(clip: Clip, features: Tensor) -> str:  # [V, C]
            store.add(clip.name, features)
            if as_json:
                return json.dumps({"video": str(clip.path), "features": clip.name, "shape": list(features.shape)})
            return f"{clip.path}: {features.shape[0]} x {features.shape[1]} features"

        todo = [clip for clip in clips if not store.has(clip.name)]
        if len(todo) < len(clips):
            print(
                f"vtfast: note: {len(clips) - len(todo)} of {len(clips)} videos have features already", file=sys.stderr
            )
        return _each_clip(model, todo, views, pre_logits=True, report=keep, as_json=as_json)


def _each_clip(
    model: LoadedModel,
    clips: Sequence[Clip],
    views: tuple[int, int],
    *,
    pre_logits: bool,
    report: Callable[[Clip, Tensor], str],
    as_json: bool,
) -> int:
    """Runs the model on each video and prints what `report` makes of its outputs (views, classes or channels)."""
    failed = 0
    with Progress(len(clips) * views[0], "clip") as progress:
        for number, clip in enumerate(clips, start=1):
            try:
                outputs = _outputs(model, clip, views, pre_logits, progress)
            except VideoError as error:
                failed += 1
                progress.print(f"vtfast: error: {error}", error=True)
                if as_json:
                    progress.print(json.dumps({"video": str(clip.path), "error": error.reason}))
            else:
                progress.print(report(clip, outputs))
            progress.reach(number * views[0])
    if failed and len(clips) > 1:
        progress.print(f"vtfast: {failed} of {len(clips)} videos failed", error=True)
    return 1 if failed else 0


def _outputs(
    model: LoadedModel, clip: Clip, views: tuple[int, int], pre_logits: bool, progress: Progress
) -> Tensor:  # [V, num_classes or C]
    """Logits, or pooled features if `pre_logits`, of all views of a video; on the CPU."""
    outputs = []
    with as_user_error(ImportError, ValueError, RuntimeError), torch.inference_mode():
        for inputs in iter_clips(clip.path, model.preprocessing, views=views[0], crops=views[1]):
            tokens = model.module.forward_features(inputs.to(model.device, model.dtype))  # type: ignore[operator]
            outputs.append(model.module.forward_head(tokens, pre_logits=pre_logits).cpu())  # type: ignore[operator]
            progress.advance()
    return torch.cat(outputs)


def _require_distinct_names(clips: Sequence[Clip]) -> None:
    paths: dict[str, Path] = {}
    for clip in clips:
        other = paths.setdefault(clip.name, clip.path)
        if other != clip.path:
            raise UserError(f"--features: {other} and {clip.path} are both called {clip.name}; give their folder")


def _views(text: str) -> tuple[int, int]:
    """An argparse type: "4" or "4x3"."""
    views, _, crops = text.partition("x")
    try:
        parsed = int(views), int(crops or 1)
    except ValueError:
        parsed = (0, 0)
    if parsed[0] < 1 or parsed[1] not in (1, 3):
        raise argparse.ArgumentTypeError(f"must be N or NxM with N at least 1 and M 1 or 3, got {text}")
    return parsed
