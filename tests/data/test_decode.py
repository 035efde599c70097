import sys
import wave
from pathlib import Path

import pytest
import torch
from av.video.stream import VideoStream
from videos import decode_all, numbered_frames, write_video

from vtfast.data import VideoError, VideoReader

CONTAINERS = {
    "mp4": ("v.mp4", {}),
    "mp4-intra": ("v.mp4", {"gop": 1}),
    "mp4-opengop": ("v.mp4", {"options": {"x264-params": "open-gop=1:scenecut=0"}}),
    "mov": ("v.mov", {}),
    "mkv": ("v.mkv", {}),
    "webm-vp9": ("v.webm", {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}),
    "mpegts": ("v.ts", {}),
    "avi-xvid": ("v.avi", {"codec": "mpeg4"}),
    "avi-h264": ("v.avi", {}),
    "mpeg": ("v.mpg", {"codec": "mpeg2video"}),
    "raw-h264": ("v.h264", {}),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_any_frames_in_any_order_equal_a_decode_from_the_start(tmp_path: Path, container: str) -> None:
    name, options = CONTAINERS[container]
    path = write_video(tmp_path / name, numbered_frames(90), **options)
    expected = decode_all(path)
    reader = VideoReader(path)
    assert len(reader) == len(expected) == 90
    for indices in ([0], [89], [3, 4, 5], [70, 3, 45, 3], list(range(1, 90, 2)), [21, 61], [88, 89, 0]):
        frames = reader.read(indices)
        assert frames.dtype == torch.uint8
        assert frames.is_contiguous()
        assert torch.equal(frames, torch.stack([expected[index] for index in indices]))


def test_pixels_are_rgb_and_close_to_what_was_encoded(tmp_path: Path) -> None:
    frames = numbered_frames(6)
    frames[..., 2] = 10
    path = write_video(tmp_path / "v.mp4", frames, options={"crf": "1"})
    decoded = VideoReader(path).read(range(6))
    # Smooth areas, where chroma subsampling does nothing: only the 8-bit conversion and light compression are left.
    inner = (slice(None), slice(28, 44), slice(4, 60))
    torch.testing.assert_close(decoded[inner].float(), frames[inner].float(), atol=6, rtol=0)


def test_rows_that_end_in_padding_are_read_right(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", numbered_frames(3, height=34, width=46))
    assert torch.equal(VideoReader(path).read([1])[0], decode_all(path)[1])


def test_decodes_only_around_the_frames_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "v.mp4", numbered_frames(200), options={"x264-params": "scenecut=0"})
    reader = VideoReader(path)
    decoded: list[int] = []
    number = reader._numbered
    monkeypatch.setattr(reader, "_numbered", lambda frames: ((decoded.append(i), (i, f))[1] for i, f in number(frames)))
    reader.read([150, 155])
    # The first frame of the file, then from the key frame at 140 on.
    assert decoded == [0, *range(140, 156)]


@pytest.mark.skipif(not hasattr(VideoStream, "set_display_rotation"), reason="this PyAV cannot write a rotation")
@pytest.mark.parametrize(("rotation", "corner"), [(90, (1, 0)), (180, (1, 1)), (-90, (0, 1))])
def test_a_rotation_in_the_file_is_applied(tmp_path: Path, rotation: int, corner: tuple[int, int]) -> None:
    path = write_video(tmp_path / "v.mp4", numbered_frames(2), rotation=rotation)
    frame = VideoReader(path).read([0])[0]
    assert tuple(frame.shape) == ((64, 48, 3) if rotation % 180 else (48, 64, 3))
    half = (frame.shape[0] // 2, frame.shape[1] // 2)
    quarters = {
        (i, j): frame[i * half[0] : (i + 1) * half[0], j * half[1] : (j + 1) * half[1]].float().mean().item()
        for i in (0, 1)
        for j in (0, 1)
    }
    # The bright quarter, at the upper left as stored, turned counter-clockwise by the angle.
    assert max(quarters, key=quarters.__getitem__) == corner


def test_average_rate(tmp_path: Path) -> None:
    assert VideoReader(write_video(tmp_path / "v.mp4", numbered_frames(5))).fps == 25


def test_a_recording_that_was_cut_off_counts_the_frames_that_are_there(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mkv", numbered_frames(90), options={"crf": "5"})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    reader = VideoReader(path)
    assert 10 < len(reader) < 80
    assert torch.equal(reader.read([5])[0], decode_all(path)[5])


def test_frames_that_never_come_out_are_replaced_by_the_last(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.avi", numbered_frames(10), codec="mpeg4", b_frames=0)
    reader = VideoReader(path)
    reader._num_frames += 2  # as a file does whose last packets show nothing
    frames = reader.read([9, 11])
    assert torch.equal(frames[0], frames[1])


def _broken_files(folder: Path) -> dict[str, Path]:
    good = write_video(folder / "good.mp4", numbered_frames(30)).read_bytes()
    files = {name: folder / f"{name}.mp4" for name in ("empty", "text", "truncated", "damaged", "sound", "missing")}
    files["empty"].touch()
    files["text"].write_text("This is not a video.\n" * 500)
    files["truncated"].write_bytes(good[: len(good) // 2])  # an MP4 has its index at the end
    files["damaged"].write_bytes(good[:40] + bytes(len(good) - 40))
    with wave.open(str(files["sound"]), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    files["folder"] = folder
    return files


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("empty", "empty file"),
        ("text", "invalid data|no video stream"),
        ("truncated", "invalid data"),
        ("damaged", "invalid data"),
        ("sound", "no video stream"),
        ("missing", "no such file"),
        ("folder", "is a directory"),
    ],
)
def test_a_file_that_is_no_video_is_one_kind_of_error(tmp_path: Path, kind: str, reason: str) -> None:
    path = _broken_files(tmp_path)[kind]
    with pytest.raises(VideoError, match=reason) as caught:
        VideoReader(path).read([0])
    assert caught.value.path == path
    assert str(path) in str(caught.value)


def test_a_file_damaged_in_the_middle_is_an_error_when_those_frames_are_read(tmp_path: Path) -> None:
    noise = torch.randint(0, 256, (12, 48, 64, 3), dtype=torch.uint8)
    path = write_video(tmp_path / "v.mp4", noise, gop=1)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 6000] = b"\xff" * 6000
    path.write_bytes(content)
    reader = VideoReader(path)
    assert len(reader.read([0, 1])) == 2
    with pytest.raises(VideoError):
        reader.read(range(12))


@pytest.mark.parametrize("indices", [[5], [-1], [0, 99]])
def test_indices_outside_the_video(tmp_path: Path, indices: list[int]) -> None:
    reader = VideoReader(write_video(tmp_path / "v.mp4", numbered_frames(5)))
    with pytest.raises(IndexError, match=r"indices must be in \[0, 5\)"):
        reader.read(indices)


def test_no_indices(tmp_path: Path) -> None:
    reader = VideoReader(write_video(tmp_path / "v.mp4", numbered_frames(5)))
    with pytest.raises(ValueError, match="at least one frame"):
        reader.read([])


def test_without_pyav_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"vtfast\[video\]"):
        VideoReader(tmp_path / "v.mp4")
