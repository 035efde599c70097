import sys
from pathlib import Path

import av
import pytest
import torch
from PIL import Image
from videos import decode_all, numbered_frames

from vtfast.data import VideoReader
from vtfast.data.encode import whole_file, write_video


@pytest.mark.parametrize("fps", [0.78125, 25.0, 30000 / 1001])
def test_an_mp4_has_the_frames_and_their_pace(tmp_path: Path, fps: float) -> None:
    path, frames = tmp_path / "out.mp4", numbered_frames(5)
    write_video(path, frames, fps=fps)
    reader = VideoReader(path)
    assert len(reader) == 5
    assert reader.fps == pytest.approx(fps, rel=1e-6)
    assert (reader.read(range(5)).float() - frames.float()).abs().mean() < 3
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.duration * stream.time_base) == pytest.approx(5 / fps, rel=1e-3)


def test_an_odd_size_repeats_the_last_row_and_column(tmp_path: Path) -> None:
    frames = numbered_frames(2, height=31, width=45)
    write_video(tmp_path / "out.mp4", frames, fps=5)
    decoded = decode_all(tmp_path / "out.mp4")[0]
    assert decoded.shape == (32, 46, 3)
    assert (decoded[:31, :45].float() - frames[0].float()).abs().mean() < 3
    assert (decoded[31, 45].float() - frames[0, 30, 44].float()).abs().max() < 10


def test_without_an_h264_encoder_it_is_mpeg4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    write_video(tmp_path / "out.mp4", numbered_frames(3), fps=23.976)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
        assert len(list(container.decode(video=0))) == 3


def test_a_gif_has_the_frames_their_pace_and_plays_for_ever(tmp_path: Path) -> None:
    path, frames = tmp_path / "out.gif", numbered_frames(4)
    write_video(path, frames, fps=3)
    with Image.open(path) as image:
        assert (image.n_frames, image.size, image.info["loop"]) == (4, (64, 48), 0)
        durations = []
        for number in range(4):
            image.seek(number)
            durations.append(image.info["duration"])
            shown = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8).view(48, 64, 3)
            assert (shown - frames[number].float()).abs().mean() < 3
    assert durations == [330, 340, 330, 330]  # hundredths that add up to 1.33 seconds


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_colours_come_back(tmp_path: Path, suffix: str) -> None:
    frames = torch.zeros(2, 32, 48, 3, dtype=torch.uint8)
    frames[:, :, :16], frames[:, :, 16:32], frames[:, :, 32:] = (
        torch.tensor(c) for c in ((200, 30, 30), (30, 180, 40), (40, 40, 220))
    )
    frames[1] = frames[1].flip(1)
    path = tmp_path / f"out{suffix}"
    write_video(path, frames, fps=2)
    decoded = torch.stack(decode_all(path))[:, 16, [8, 24, 40]].float()
    assert (decoded - frames[:, 16, [8, 24, 40]].float()).abs().max() < 12


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")

    def fail(partial: Path) -> None:
        partial.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), whole_file(path) as partial:
        fail(partial)
    assert path.read_text() == "old"
    with whole_file(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_folder_that_is_not_there(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(OSError, match="No such file"):
        write_video(tmp_path / "missing" / f"out{suffix}", numbered_frames(2), fps=2)


@pytest.mark.parametrize(("suffix", "module", "package"), [(".mp4", "av", "PyAV"), (".gif", "PIL", "Pillow")])
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"{package}: pip install"):
        write_video(tmp_path / f"out{suffix}", numbered_frames(2), fps=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "frames", "fps", "message"),
    [
        ("out.avi", numbered_frames(2), 2, "path must end in .mp4 or .gif"),
        ("out.mp4", numbered_frames(2).float(), 2, "frames must be uint8"),
        ("out.mp4", numbered_frames(2)[0], 2, "frames must be uint8"),
        ("out.mp4", numbered_frames(2)[:0], 2, "frames must be uint8"),
        ("out.mp4", numbered_frames(2), 0, "fps must be positive, got 0"),
    ],
)
def test_bad_arguments(tmp_path: Path, name: str, frames: torch.Tensor, fps: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / name, frames, fps=fps)
