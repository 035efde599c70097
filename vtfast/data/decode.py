"""Decoding of video files with PyAV, only the frames that are wanted."""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["VideoError", "VideoReader"]

# Containers that store when each frame is shown. Elsewhere (AVI, MPEG) the times are guesses of the demuxer, which
# change after a jump; those files are decoded from their start.
_EXACT_CONTAINERS = {"mov", "mp4", "matroska", "webm"}
# A jump throws away the frames that the decoder's threads have under way, so short ones do not pay.
_SHORTEST_JUMP = 16


class VideoError(Exception):
    """A file that cannot be read as a video.

    Args:
        path: the file.
        reason: what is wrong with it.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{os.fspath(path)}: {reason}")
        self.path = path
        self.reason = reason


class VideoReader:
    """Random access to the frames of a video file, in the order in which they are shown.

    `len(reader)` is the number of frames and `reader.fps` their average rate per second, None if the file does not
    say. All packets are walked over once, without decoding them, because nothing else tells the number of frames for
    sure: a header may leave it out (Matroska, MPEG-TS) or be wrong (a recording that was cut off).

    Args:
        path: the file.

    Raises:
        VideoError: the file is missing, empty, damaged, or has no video in it.
        ImportError: PyAV is not installed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self.fps: float | None = None
        self._num_frames = 0
        self._times: list[int] = []  # of each frame, ascending, in the stream's time base; empty if not known
        self._keys: list[int] = []  # indices of the frames at which decoding may start, ascending
        with self._open() as (container, stream):
            self.fps = None if stream.average_rate is None else float(stream.average_rate)
            self._scan(container, stream)
        if self._num_frames == 0:
            raise VideoError(path, "no frames")

    def __len__(self) -> int:
        return self._num_frames

    def read(self, indices: Sequence[int]) -> Tensor:  # [T, H, W, 3]
        """Decodes frames.

        Args:
            indices: of the frames, each in [0, len(self)), in any order, repetitions allowed.

        Returns:
            RGB frames (T, H, W, 3), uint8, upright: a rotation that the file asks for has been applied.

        Raises:
            VideoError: the frames cannot be decoded.
        """
        if len(indices) == 0:
            raise ValueError("indices must name at least one frame, got none")
        for index in indices:
            if not 0 <= index < len(self):
                raise IndexError(f"indices must be in [0, {len(self)}), got {index}")
        wanted = sorted(set(indices))
        with self._open() as (container, stream):
            images: dict[int, Tensor] = {}  # [H, W, 3] each
            size: tuple[int, int] | None = None
            for index, frame in zip(wanted, self._decode(container, stream, wanted), strict=True):
                # A stream may change its size half-way; the clip keeps that of its first frame.
                size = size or (frame.width, frame.height)
                images[index] = _to_rgb(frame, *size)
        return torch.stack([images[index] for index in indices])

    @contextmanager
    def _open(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        """Opens the file; whatever PyAV raises for it inside the block becomes a `VideoError`."""
        av = _import_av()
        try:
            with av.open(os.fspath(self.path)) as container:
                # The cover picture of a music file is a video stream of one frame.
                cover = av.stream.Disposition.attached_pic
                stream = next((s for s in container.streams.video if not s.disposition & cover), None)
                if stream is None:
                    raise VideoError(self.path, "no video stream")
                stream.thread_type = "AUTO"
                yield container, stream
        except (av.error.FFmpegError, OSError) as error:
            reason = "empty file" if _is_empty(self.path) else error.strerror or str(error)
            raise VideoError(self.path, reason[:1].lower() + reason[1:]) from error

    def _scan(self, container: InputContainer, stream: VideoStream) -> None:
        """Counts the frames and notes when each is shown."""
        times, key_times = [], []
        for packet in container.demux(stream):
            if packet.size == 0:  # the flush packet at the end of a stream
                continue
            if packet.pts is not None and packet.is_keyframe:
                key_times.append(packet.pts)
            if packet.is_discard:  # cut away by an edit list: decoded but never shown
                continue
            self._num_frames += 1
            if packet.pts is not None:
                times.append(packet.pts)
        exact = not _EXACT_CONTAINERS.isdisjoint(container.format.name.split(","))
        if exact and len(set(times)) == self._num_frames:
            self._times = sorted(times)
            self._keys = sorted(bisect.bisect_left(self._times, time) for time in key_times)

    def _decode(self, container: InputContainer, stream: VideoStream, wanted: list[int]) -> Iterator[VideoFrame]:
        """The frames of the ascending indices `wanted`.

        Some packets show nothing (alternate reference frames of VP8, packed B-frames of AVI), so that fewer frames
        may come out than were counted. The next frame stands in for a missing one, at the end of the video the last.
        """
        frames = self._numbered(container.decode(stream))
        position, frame = next(frames, (len(self), None))
        for index in wanted:
            key = self._key_before(index)
            if key - position >= _SHORTEST_JUMP:
                frames, position, frame = self._jump(container, stream, key, index)
            while position < index:
                position, following = next(frames, (len(self), None))
                frame = following or frame
            if frame is None:
                raise VideoError(self.path, f"frame {index} of {len(self)} cannot be decoded")
            yield frame

    def _jump(
        self, container: InputContainer, stream: VideoStream, key: int, index: int
    ) -> tuple[Iterator[tuple[int, VideoFrame]], int, VideoFrame | None]:
        """Restarts decoding at the frame `key`, or at the first if the file's own index leads past `index`."""
        for start in (key, 0):
            container.seek(self._times[start], stream=stream)
            frames = self._numbered(container.decode(stream))
            position, frame = next(frames, (len(self), None))
            if position <= index:
                break
        return frames, position, frame

    def _numbered(self, frames: Iterator[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
        """Frames with their indices; after a jump only the times can tell those."""
        for count, frame in enumerate(frames):
            if not self._times:
                yield count, frame
            elif frame.pts is not None:
                yield bisect.bisect_left(self._times, frame.pts), frame

    def _key_before(self, index: int) -> int:
        """The last frame at or before `index` at which decoding may start."""
        position = bisect.bisect_right(self._keys, index)
        return self._keys[position - 1] if position else 0


def _to_rgb(frame: VideoFrame, width: int, height: int) -> Tensor:  # [H, W, 3]
    """Pixels of a frame, uint8, turned as the file asks for."""
    plane = frame.reformat(width=width, height=height, format="rgb24").planes[0]
    rows = torch.frombuffer(plane, dtype=torch.uint8).view(height, plane.line_size)  # rows may end in padding
    image = rows[:, : 3 * width].reshape(height, width, 3)
    # Both count quarter turns counter-clockwise. The copy outlives the frame's own memory.
    return torch.rot90(image, round(frame.rotation / 90), dims=(0, 1)).clone(memory_format=torch.contiguous_format)


def _is_empty(path: str | os.PathLike[str]) -> bool:
    return os.path.isfile(path) and os.path.getsize(path) == 0


def _import_av() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise ImportError("reading videos needs PyAV: pip install 'vtfast[video]'") from error
    return av
