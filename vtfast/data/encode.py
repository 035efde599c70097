"""Writing of small videos: MP4 with PyAV, GIF with Pillow."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

__all__ = ["VIDEO_SUFFIXES", "pixel_bytes", "whole_file", "write_video"]

VIDEO_SUFFIXES = (".mp4", ".gif")


def write_video(
    path: str | os.PathLike[str],
    frames: Tensor,  # [T, H, W, 3]
    *,
    fps: float,
) -> None:
    """Writes frames as a video; the file is there as a whole or not at all.

    Args:
        path: the file, replaced if it exists: H.264 (MPEG-4 where PyAV has no encoder for it) if it ends in .mp4, an
            animated picture that plays for ever if it ends in .gif.
        frames: uint8 RGB frames. An MP4 has an even height and width: a last odd row or column is repeated.
        fps: frames per second, also below 1. A GIF knows hundredths of a second.

    Raises:
        ValueError: another suffix, no frames, frames of another shape or dtype, or a rate that is not positive.
        OSError: the file cannot be written.
        ImportError: PyAV or Pillow is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in VIDEO_SUFFIXES:
        raise ValueError(f"path must end in {' or '.join(VIDEO_SUFFIXES)}, got {os.fspath(path)}")
    if str(frames.dtype) != "torch.uint8" or frames.dim() != 4 or frames.shape[-1] != 3 or frames.numel() == 0:
        raise ValueError(f"frames must be uint8 (T, H, W, 3), got {frames.dtype} {tuple(frames.shape)}")
    if not fps > 0:
        raise ValueError(f"fps must be positive, got {fps}")
    with whole_file(path) as partial:
        (_write_mp4 if suffix == ".mp4" else _write_gif)(partial, frames, fps)


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file to write to, which takes the place of `path` when the block ends and goes away if the block fails."""
    partial = Path(path).with_name(f"{Path(path).name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def pixel_bytes(
    image: Tensor,  # [H, W, 3] or [H, 3*W], uint8
) -> bytes:
    """The pixels row by row; numpy need not be installed."""
    image = image.cpu().contiguous()
    return ctypes.string_at(image.data_ptr(), image.numel())


def _write_mp4(path: Path, frames: Tensor, fps: float) -> None:
    try:
        import av
    except ImportError as error:
        raise ImportError("writing MP4 needs PyAV: pip install 'vtfast[video]'") from error
    frames = _even(frames)
    height, width = frames.shape[1:3]
    h264 = "libx264" in av.codecs_available
    options = {"crf": "18"} if h264 else {"qscale": "3"}
    try:
        with av.open(str(path), "w", format="mp4") as container:
            # Encoders want the rate as a ratio of small numbers; 1001 is the denominator of the rates of television.
            rate = Fraction(fps).limit_denominator(1001)
            stream: Any = container.add_stream("libx264" if h264 else "mpeg4", rate=rate, options=options)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for image in frames:
                frame = av.VideoFrame(width, height, "rgb24")
                plane = frame.planes[0]
                rows = image.new_zeros(height, plane.line_size)  # rows may end in padding
                rows[:, : 3 * width] = image.flatten(1)
                plane.update(pixel_bytes(rows))
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    except av.error.FFmpegError as error:
        raise OSError(f"{path}: {error.strerror or error}") from error


def _write_gif(path: Path, frames: Tensor, fps: float) -> None:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("writing GIF needs Pillow: pip install 'vtfast[video]'") from error
    height, width = frames.shape[1:3]
    images = []
    for frame in frames:
        image = Image.frombytes("RGB", (width, height), pixel_bytes(frame))
        # A palette for each picture, dithered: Pillow's own choice leaves bands in smooth colours.
        palette = image.quantize(256, method=Image.Quantize.FASTOCTREE)
        images.append(image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG))
    # Each frame ends at the hundredth nearest to its time, so that errors of rounding do not add up.
    ends = [round(100 * number / fps) for number in range(len(images) + 1)]
    durations = [10 * (end - start) for start, end in pairwise(ends)]
    images[0].save(path, format="GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)


def _even(
    frames: Tensor,  # [T, H, W, 3]
) -> Tensor:  # [T, H', W', 3]
    """Repeats a last odd row and column: the colours of yuv420p are those of 2 x 2 pixels."""
    height, width = frames.shape[1:3]
    if height % 2 == 0 and width % 2 == 0:
        return frames
    planes = frames.permute(0, 3, 1, 2).float()
    return F.pad(planes, (0, width % 2, 0, height % 2), mode="replicate").permute(0, 2, 3, 1).to(frames.dtype)
