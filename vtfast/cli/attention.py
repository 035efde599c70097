"""`vtfast attention`: where a video transformer looks, as a picture and as a video."""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtfast.cli.errors import UserError, as_user_error
from vtfast.cli.options import (
    LoadedModel,
    add_backend_option,
    add_model_options,
    backend,
    load_model,
    note_random_weights,
)
from vtfast.data import VideoError, VideoReader, clip_indices, preprocess
from vtfast.data.encode import VIDEO_SUFFIXES, whole_file, write_video
from vtfast.models import AttentionStep, Preprocessing, record_attention, rollout
from vtfast.visual import Panel, Scale, film, overlay, strip
from vtfast.visual.page import require_pillow

__all__ = ["add_command", "attention"]

# Columns of the picture; more would be too small to see anything on.
_MOST_COLUMNS = 8
# Frames per second of a source that does not tell.
_USUAL_FPS = 25.0


def add_command(commands: Any) -> None:
    """Adds the command to the sub-parsers of `vtfast`."""
    parser = commands.add_parser(
        "attention",
        help="show where a video transformer looks",
        description="Runs a TimeSformer on the middle clip of a video and draws which patches its result comes from,"
        " by attention rollout (Abnar & Zuidema 2020): frames, the class token through all attention, through"
        " attention in space alone, and what each place takes from each frame through attention in time alone.",
    )
    parser.add_argument("clip", type=Path, metavar="CLIP", help="video file")
    parser.add_argument(
        "--output", type=Path, default=Path("attention.png"), metavar="PNG", help="picture (default: %(default)s)"
    )
    parser.add_argument(
        "--video", type=Path, metavar="FILE", help="video as well, .mp4 or .gif, at the clip's own pace"
    )
    parser.add_argument("--block", type=int, metavar="N", help="one block instead of all; the first is 0, the last -1")
    add_model_options(parser)
    add_backend_option(parser)
    parser.set_defaults(command=attention, model="timesformer_base")


def attention(args: argparse.Namespace) -> int:
    """Carries out the command and returns the exit status."""
    _check_outputs(args.output, args.video)
    model = load_model(args)
    note_random_weights(model)
    try:
        with as_user_error(ImportError):
            clip = _read(args.clip, model.preprocessing)
    except VideoError as error:
        print(f"vtfast: error: {error}", file=sys.stderr)
        return 1
    with backend(args.backend), as_user_error(ValueError, RuntimeError), torch.inference_mode():
        with record_attention(model.module, mean_heads=True) as steps:
            model.module(clip.inputs.to(model.device, model.dtype))
        panels = _panels(clip, _chosen(steps, args.block), args.block)
    with as_user_error(OSError, ImportError):
        _write_picture(args.output, panels, clip, model)
        print(f"{args.output}: {', '.join(panel.title for panel in panels)}")
        if args.video is not None:
            labels = [", ".join(filter(None, clip.label(number))) for number in range(len(clip.indices))]
            pictures = film(panels, labels, title=_title(clip, model), note="1 x is an even share of all tokens")
            write_video(args.video, pictures, fps=clip.pace)
            print(f"{args.video}: {len(pictures)} frames, {clip.pace:.2f} per second")
    return 0


@dataclass(frozen=True)
class _Clip:
    """The clip of a video that the model gets.

    Args:
        name: of the video.
        inputs: what the model gets.
        images: uint8 RGB, the same without the normalisation.
        indices: of the frames in the source.
        fps: frames per second of the source, None if unknown.
        pace: frames of the clip per second.
    """

    name: str
    inputs: Tensor  # [1, 3, T, H, W]
    images: Tensor  # [T, H, W, 3]
    indices: list[int]
    fps: float | None
    pace: float

    def label(self, number: int) -> tuple[str, str]:
        """Which frame of the source a frame of the clip is, and when it is shown."""
        index = self.indices[number]
        return f"frame {index}", "" if self.fps is None else f"{index / self.fps:.2f} s"


def _read(path: Path, settings: Preprocessing) -> _Clip:
    reader = VideoReader(path)
    (indices,) = clip_indices(len(reader), frames=settings.frames, stride=settings.stride)
    inputs = preprocess(reader.read(indices), settings)
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (settings.mean, settings.std))
    images = ((inputs[0] * std + mean) * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 3, 0)
    return _Clip(path.name, inputs, images, indices, reader.fps, (reader.fps or _USUAL_FPS) / settings.stride)


def _chosen(steps: list[AttentionStep], block: int | None) -> list[AttentionStep]:
    """All steps, or those of one block."""
    if block is None:
        return steps
    depth = steps[-1].block + 1
    if not -depth <= block < depth:
        raise UserError(f"--block must be in 0 to {depth - 1}, got {block}")
    return [step for step in steps if step.block == block % depth]


def _panels(clip: _Clip, steps: list[AttentionStep], block: int | None) -> list[Panel]:
    """The frames, and every map that the model has steps for."""
    maps = rollout(steps, num_clips=1)
    schemes = " and ".join(dict.fromkeys(step.scheme for step in steps))
    which = f"all {steps[-1].block + 1} blocks" if block is None else f"block {steps[0].block}"
    notes = {
        "cls": f"what the class token draws on, through {schemes} attention of {which}",
        "space": "what it draws on through the attention inside frames alone",
        "time": "which frames each place draws on, through the attention over time alone",
    }
    panels = [Panel("frames", "as the model sees them", clip.images)]
    for title, note in notes.items():
        shares: Tensor | None = getattr(maps, title)  # [1, T, H', W']
        if shares is not None:
            values = shares[0].cpu() * shares[0].numel()
            scale = Scale.of(values)
            panels.append(Panel(title, note, overlay(clip.images, values, scale), scale))
    return panels


def _write_picture(path: Path, panels: list[Panel], clip: _Clip, model: LoadedModel) -> None:
    count = len(clip.indices)
    columns = torch.linspace(0, count - 1, min(count, _MOST_COLUMNS)).round().long().tolist()
    rows = [Panel(panel.title, panel.note, panel.images[columns], panel.scale) for panel in panels]
    settings = model.preprocessing
    shown = f"{len(columns)} of {count}" if len(columns) < count else str(count)
    note = (
        f"{shown} frames, one in {settings.stride} of the source, {settings.crop} x {settings.crop} pixels."
        " Attention rollout, mean over heads; the scales are in multiples of an even share of all tokens."
    )
    image = strip(rows, [clip.label(column) for column in columns], title=_title(clip, model), note=note)
    with whole_file(path) as partial:
        image.save(partial, format="PNG")


def _title(clip: _Clip, model: LoadedModel) -> str:
    weights = "random weights" if model.checkpoint is None else model.checkpoint.name
    return f"{clip.name}: what {model.name} looks at ({weights})"


def _check_outputs(output: Path, video: Path | None) -> None:
    """Before anything is computed."""
    if output.suffix.lower() != ".png":
        raise UserError(f"--output must end in .png, got {output}")
    if video is not None and video.suffix.lower() not in VIDEO_SUFFIXES:
        raise UserError(f"--video must end in {' or '.join(VIDEO_SUFFIXES)}, got {video}")
    for option, path in (("--output", output), ("--video", video)):
        if path is not None and not path.parent.is_dir():
            raise UserError(f"{option}: {path.parent} is not a folder")
        if path is not None and path.is_dir():
            raise UserError(f"{option}: {path} is a folder")
    with as_user_error(ImportError):
        require_pillow()
