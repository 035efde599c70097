"""From decoded frames to the clip that a model takes."""

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["ClipSettings", "preprocess"]


class ClipSettings(Protocol):
    """How a model's clips are made; the `preprocessing` of every model of `vtfast` is one.

    `frames` and `stride` (in frames of the source) describe the sampling, `short_side` and `crop` (in pixels),
    `interpolation` and `antialias` the resize and the crop, `mean` and `std` the RGB channels after scaling to [0, 1].
    """

    @property
    def frames(self) -> int: ...
    @property
    def stride(self) -> int: ...
    @property
    def short_side(self) -> int: ...
    @property
    def crop(self) -> int: ...
    @property
    def interpolation(self) -> str: ...
    @property
    def antialias(self) -> bool: ...
    @property
    def mean(self) -> tuple[float, float, float]: ...
    @property
    def std(self) -> tuple[float, float, float]: ...


def preprocess(
    frames: Tensor,  # [T, H, W, 3]
    settings: ClipSettings,
    *,
    crops: int = 1,
) -> Tensor:  # [crops, 3, T, crop, crop]
    """Resizes, crops, scales to [0, 1] and normalises, as torchvision's `VideoClassification` preset does.

    The short side is resized to `settings.short_side` and the result rounded to 8 bits, because the published weights
    were trained on resized 8-bit frames. One crop is cut from the middle; three are spread along the longer side, as
    in the test protocols of SlowFast and Video Swin. A frame that ends up smaller than the crop is padded with black.

    Args:
        frames: uint8 RGB frames.
        settings: sizes and statistics; `frames` and `stride` are not looked at.
        crops: 1 or 3.

    Returns:
        Normalised float32 crops.
    """
    if frames.dtype != torch.uint8 or frames.dim() != 4 or frames.shape[-1] != 3:
        raise ValueError(f"frames must be uint8 (T, H, W, 3), got {frames.dtype} {tuple(frames.shape)}")
    if crops not in (1, 3):
        raise ValueError(f"crops must be 1 or 3, got {crops}")
    height, width = _resized(frames.shape[1], frames.shape[2], settings.short_side)
    side = settings.crop
    corners = _corners(max(height, side), max(width, side), side, crops)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (settings.mean, settings.std))
    clip = torch.empty(crops, 3, len(frames), side, side)
    # Frame by frame: a float copy of a whole clip at the size of the source could be gigabytes.
    for step, frame in enumerate(frames):
        image = _resize(frame.permute(2, 0, 1), height, width, settings)  # [3, H', W']
        image = _pad(image, side)
        for crop, (top, left) in enumerate(corners):
            cut = image[:, top : top + side, left : left + side]
            clip[crop, :, step] = (cut / 255 - mean) / std
    return clip


def _resized(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Size (height, width) after the short side became `short_side`; the long side is rounded down."""
    if height <= width:
        return short_side, short_side * width // height
    return short_side * height // width, short_side


def _resize(
    image: Tensor,  # [3, H, W]
    height: int,
    width: int,
    settings: ClipSettings,
) -> Tensor:  # [3, height, width]
    """Whole numbers from 0 to 255, as float32."""
    image = image.float()
    if image.shape[1:] == (height, width):
        return image
    # torch refuses the flag, even False, for modes that have no corners to align.
    aligned = None if settings.interpolation in ("nearest", "nearest-exact", "area") else False
    image = F.interpolate(
        image[None],
        size=(height, width),
        mode=settings.interpolation,
        align_corners=aligned,
        antialias=settings.antialias,
    )[0]
    return image.clamp(0, 255).round()


def _pad(
    image: Tensor,  # [3, H, W]
    side: int,
) -> Tensor:  # [3, >= side, >= side]
    """Adds black around an image that is smaller than the crop."""
    tall, wide = (max(side - size, 0) for size in image.shape[1:])
    if not tall and not wide:
        return image
    return F.pad(image, (wide // 2, wide - wide // 2, tall // 2, tall - tall // 2))


def _corners(height: int, width: int, side: int, crops: int) -> list[tuple[int, int]]:
    """Top left corners of the crops."""
    # Half a pixel is rounded to even for one crop, as torchvision does, and upwards for three, as SlowFast does.
    if crops == 1:
        return [(round((height - side) / 2), round((width - side) / 2))]
    top, left = math.ceil((height - side) / 2), math.ceil((width - side) / 2)
    if height > width:
        return [(0, left), (top, left), (height - side, left)]
    return [(top, 0), (top, left), (top, width - side)]
