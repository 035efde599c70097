"""From a video file to the clips that a model takes."""

import os
from collections.abc import Iterator

import torch
from torch import Tensor

from vtfast.data.decode import VideoReader
from vtfast.data.preprocess import ClipSettings, preprocess
from vtfast.data.sampling import clip_indices

__all__ = ["iter_clips", "load_clips"]


def iter_clips(
    path: str | os.PathLike[str], settings: ClipSettings, *, views: int = 1, crops: int = 1
) -> Iterator[Tensor]:  # [crops, 3, T, crop, crop] each
    """The clips of `load_clips`, one view at a time, so that a long video need not be in memory as a whole."""
    reader = VideoReader(path)
    for indices in clip_indices(len(reader), frames=settings.frames, stride=settings.stride, views=views):
        yield preprocess(reader.read(indices), settings, crops=crops)


def load_clips(
    path: str | os.PathLike[str], settings: ClipSettings, *, views: int = 1, crops: int = 1
) -> Tensor:  # [views * crops, 3, T, crop, crop]
    """Decodes a video into normalised clips: `model(load_clips("cat.mp4", model.preprocessing))`.

    Args:
        path: the video file.
        settings: how the clips are made, `model.preprocessing`.
        views: clips evenly spread over the video, see `clip_indices`.
        crops: crops of each, 1 (the middle) or 3 (along the longer side).

    Returns:
        Float32 clips; all crops of the first view come first.

    Raises:
        VideoError: the file cannot be read as a video.
        ImportError: PyAV is not installed.
    """
    return torch.cat(list(iter_clips(path, settings, views=views, crops=crops)))
