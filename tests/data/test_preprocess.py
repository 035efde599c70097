from dataclasses import replace
from pathlib import Path

import pytest
import torch
from oracles import torchvision_models
from videos import decode_all, numbered_frames, write_video

from vtfast.data import load_clips, preprocess
from vtfast.models import Preprocessing

SMALL = Preprocessing(short_side=64, crop=56, frames=4, stride=2)


def random_frames(height: int, width: int, count: int = 2) -> torch.Tensor:  # [T, H, W, 3]
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8)


@pytest.mark.parametrize(("short_side", "crop"), [(256, 224), (64, 56), (57, 50), (60, 64)])
@pytest.mark.parametrize("size", [(272, 640), (320, 240), (97, 61), (256, 256), (33, 150)], ids=str)
def test_equals_torchvision_bit_for_bit(size: tuple[int, int], short_side: int, crop: int) -> None:
    torchvision_models()
    from torchvision.transforms._presets import VideoClassification

    settings = replace(SMALL, short_side=short_side, crop=crop)
    frames = random_frames(*size)
    preset = VideoClassification(
        crop_size=(crop, crop), resize_size=(short_side,), mean=settings.mean, std=settings.std
    )
    expected = preset(frames.permute(0, 3, 1, 2))  # [3, T, crop, crop]
    assert torch.equal(preprocess(frames, settings)[0], expected)


def test_antialias_equals_torchvision() -> None:
    torchvision_models()
    from torchvision.transforms import functional as tvf

    frames = random_frames(300, 400)
    expected = tvf.center_crop(tvf.resize(frames.permute(0, 3, 1, 2), [64], antialias=True), [56, 56])
    settings = replace(SMALL, antialias=True, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    clip = preprocess(frames, settings)[0].transpose(0, 1) * 255  # [T, 3, crop, crop]
    torch.testing.assert_close(clip, expected.float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("wide", [True, False])
def test_three_crops_span_the_longer_side(wide: bool) -> None:
    height, width = (64, 100) if wide else (100, 64)
    frames = random_frames(height, width)
    settings = replace(SMALL, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    crops = preprocess(frames, settings, crops=3) * 255
    image = frames.permute(3, 0, 1, 2).float()  # [3, T, H, W]
    assert crops.shape == (3, 3, 2, 56, 56)
    for crop, start in zip(crops, (0, 22, 44), strict=True):
        top, left = (4, start) if wide else (start, 4)
        torch.testing.assert_close(crop, image[..., top : top + 56, left : left + 56], atol=1e-4, rtol=0)


def test_normalises_each_channel() -> None:
    frames = torch.full((1, 64, 64, 3), 51, dtype=torch.uint8)
    clip = preprocess(frames, replace(SMALL, mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0)))
    torch.testing.assert_close(clip[0, :, 0, 0, 0], torch.tensor([0.2, 0.0, -0.05]))


@pytest.mark.parametrize("mode", ["nearest", "bicubic"])
def test_other_interpolations_stay_in_range(mode: str) -> None:
    settings = replace(SMALL, interpolation=mode, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    clip = preprocess(random_frames(48, 80), settings)
    assert clip.min() >= 0
    assert clip.max() <= 1


@pytest.mark.parametrize(
    ("frames", "crops", "message"),
    [
        (torch.zeros(2, 8, 8, 3), 1, r"frames must be uint8 \(T, H, W, 3\), got torch.float32"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), 1, r"got torch.uint8 \(2, 3, 8, 8\)"),
        (torch.zeros(2, 8, 8, 3, dtype=torch.uint8), 2, "crops must be 1 or 3, got 2"),
    ],
)
def test_wrong_arguments(frames: torch.Tensor, crops: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        preprocess(frames, SMALL, crops=crops)


def test_load_clips_decodes_samples_and_crops(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", numbered_frames(20, 48, 80))
    clips = load_clips(path, SMALL, views=2, crops=3)
    frames = torch.stack(decode_all(path))
    expected = [preprocess(frames[start : start + 7 : 2], SMALL, crops=3) for start in (0, 13)]
    assert clips.shape == (6, 3, 4, 56, 56)
    assert torch.equal(clips, torch.cat(expected))
