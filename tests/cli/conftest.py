"""Small models that the command line knows, and small videos."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from oracles import SMALL_SWIN, small_swin
from videos import numbered_frames, write_video

from vtfast.models import Preprocessing, VideoSwin, register_model, registry


@pytest.fixture(autouse=True)
def registered_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers `small_swin`, whose weights never change, and `random_swin`, initialised as a published model is."""
    monkeypatch.setattr(registry, "_configs", dict(registry._configs))

    def random_swin(**config: Any) -> VideoSwin:
        return VideoSwin(**(SMALL_SWIN | config))

    for builder in (small_swin, random_swin):
        settings = Preprocessing(short_side=36, crop=32, frames=4, stride=2)
        register_model(preprocessing=settings, num_classes=7)(builder)


@pytest.fixture
def video(tmp_path: Path) -> Callable[..., Path]:
    """Writes a video of 20 frames under a name."""

    def make(name: str = "video.mp4", count: int = 20) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_video(path, numbered_frames(count))

    return make
