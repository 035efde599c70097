"""`vtfast attention` with a model made to look for bright patches."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import small_timesformer
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from videos import write_video

from vtfast.cli import attention, main
from vtfast.data import VideoReader
from vtfast.models import Preprocessing, TimeSformer, register_model

MODEL = "--model=bright_timesformer"
Capture = pytest.CaptureFixture[str]
MakeVideo = Callable[..., Path]
# Of the clip: 4 frames, each second one of the source, in the middle of it.
FRAMES = [6, 8, 10, 12]


def looking_for_light(**config: Any) -> TimeSformer:
    """Every attention of it is drawn to patches lighter than the mean, and nothing else happens to its tokens."""
    model = TimeSformer(**({"image_size": 64, "num_frames": 4, "embed_dim": 8, "depth": 2, "num_heads": 1} | config))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        # Light patches are (1, -1, 0, ...), dark ones (-1, 1, 0, ...), up to a factor that the norms take away.
        model.patch_embed.proj.weight[0], model.patch_embed.proj.weight[1] = 1e-2, -1e-2
        for block in model.blocks:
            for step in block.steps.values():
                step.norm.weight.fill_(1)
                step.attn.qkv.bias[0] = 8  # any query
                step.attn.qkv.weight[8, 0] = 1  # keys
    return model


def light_at(source_frame: int, row: int, column: int) -> Tensor:  # [20, 64, 64, 3]
    """A dark video with one light patch of 16 x 16 in two frames, so that no clip of every second one misses it."""
    frames = torch.full((20, 64, 64, 3), 30, dtype=torch.uint8)
    frames[source_frame : source_frame + 2, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 230
    return frames


@pytest.fixture(autouse=True)
def attentive_models(registered_models: None) -> None:
    """Models with attention to show."""

    def bright_timesformer(**config: Any) -> TimeSformer:
        return looking_for_light(**config)

    def joint_timesformer(**config: Any) -> TimeSformer:
        return small_timesformer(attention_type="joint", **config)

    def space_timesformer(**config: Any) -> TimeSformer:
        return small_timesformer(attention_type="space", **config)

    for builder in (bright_timesformer, joint_timesformer, space_timesformer):
        settings = Preprocessing(short_side=64, crop=64, frames=4, stride=2)
        register_model(preprocessing=settings, num_classes=7)(builder)


def rows_of(path: Path, rows: int = 4) -> Tensor:  # [rows, 4, 192, 192, 3]
    """The pictures of a strip of square frames."""
    with Image.open(path) as image:
        pixels = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
        page = pixels.view(image.height, image.width, 3)
    lefts, tops = [222 + 198 * column for column in range(4)], [112 + 204 * row for row in range(rows)]
    return torch.stack([torch.stack([page[top : top + 192, left : left + 192] for left in lefts]) for top in tops])


def patch_of_the_most(values: Tensor) -> tuple[int, int, int]:  # [T, 192, 192]
    """Frame, row and column of the largest value, in patches of 4 x 4 a frame."""
    frame, y, x = torch.unravel_index(values.argmax(), values.shape)
    return int(frame), int(y) // 48, int(x) // 48


@pytest.mark.parametrize(("frame", "row", "column"), [(0, 0, 0), (2, 1, 3), (3, 3, 2)])
def test_the_light_patch_lights_up_in_its_frame_and_place(
    tmp_path: Path, capsys: Capture, frame: int, row: int, column: int
) -> None:
    video, picture = tmp_path / "light.mp4", tmp_path / "out.png"
    write_video(video, light_at(FRAMES[frame], row, column))
    assert main(["attention", str(video), MODEL, f"--output={picture}"]) == 0
    assert capsys.readouterr().out == f"{picture}: frames, cls, space, time\n"
    frames, *maps = rows_of(picture)
    assert patch_of_the_most(frames.float().sum(dim=-1)) == (frame, row, column)
    for pictures in maps:
        red, green, blue = pictures.float().unbind(dim=-1)
        assert patch_of_the_most(red + green - 2 * blue) == (frame, row, column)  # yellow, the bright end of the scale


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_video_at_the_pace_of_the_clip(tmp_path: Path, capsys: Capture, suffix: str) -> None:
    video, picture, out = tmp_path / "light.mp4", tmp_path / "out.png", tmp_path / f"out{suffix}"
    write_video(video, light_at(8, 1, 3))
    assert main(["attention", str(video), MODEL, f"--output={picture}", f"--video={out}"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == f"{out}: 4 frames, 12.50 per second"
    reader = VideoReader(out)
    assert len(reader) == 4
    assert reader.fps == pytest.approx(12.5)
    for number, image in enumerate(reader.read(range(4)).float()):
        yellow = (image[..., 0] + image[..., 1] - 2 * image[..., 2])[76 : 76 + 288, 310 : 310 + 288]  # the map of cls
        y, x = torch.unravel_index(yellow.argmax(), yellow.shape)
        assert (yellow.max() > 100) == (number == 1)
        if number == 1:
            assert (int(y) // 72, int(x) // 72) == (1, 3)


@pytest.mark.parametrize(
    ("model", "panels"), [("joint_timesformer", "frames, cls"), ("space_timesformer", "frames, cls, space")]
)
def test_only_maps_of_steps_that_the_model_has(
    video: MakeVideo, tmp_path: Path, capsys: Capture, model: str, panels: str
) -> None:
    out = tmp_path / "out.png"
    assert main(["attention", str(video()), f"--model={model}", f"--output={out}", "--size=48"]) == 0
    assert capsys.readouterr().out == f"{out}: {panels}\n"
    assert rows_of(out, rows=len(panels.split(","))).float().std() > 10


def test_one_block(video: MakeVideo, tmp_path: Path) -> None:
    path, pictures = video(), []
    for number in (0, 1, -1):
        out = tmp_path / f"{number}.png"
        arguments = ["--model=joint_timesformer", f"--block={number}", f"--output={out}", "--size=48"]
        assert main(["attention", str(path), *arguments]) == 0
        pictures.append(rows_of(out, rows=2))
    assert torch.equal(pictures[1], pictures[2])
    assert not torch.equal(pictures[0], pictures[1])


def test_long_clips_show_some_of_their_frames(video: MakeVideo, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    assert main(["attention", str(video()), MODEL, f"--output={out}", "--frames=11", "--stride=1"]) == 0
    with Image.open(out) as image:
        assert image.width == 222 + 8 * 198 + 14 + 6 + 64 + 16


def test_random_weights_are_announced(video: MakeVideo, tmp_path: Path, capsys: Capture) -> None:
    weights, arguments = tmp_path / "weights.safetensors", [str(video()), MODEL, f"--output={tmp_path / 'out.png'}"]
    assert main(["attention", *arguments]) == 0
    assert "weights are random" in capsys.readouterr().err
    save_file(looking_for_light(num_classes=7).state_dict(), weights)
    assert main(["attention", *arguments, f"--checkpoint={weights}"]) == 0
    assert capsys.readouterr().err == ""


def test_a_bad_video_is_named(tmp_path: Path, capsys: Capture) -> None:
    assert main(["attention", str(tmp_path / "missing.mp4"), MODEL, f"--output={tmp_path / 'out.png'}"]) == 1
    assert f"vtfast: error: {tmp_path / 'missing.mp4'}: no such file" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output=out.jpg"], "--output must end in .png, got out.jpg"),
        (["--video=out.avi"], "--video must end in .mp4 or .gif, got out.avi"),
        (["--output=missing/out.png"], "--output: missing is not a folder"),
        (["--video=missing/out.gif"], "--video: missing is not a folder"),
        (["--output={folder}"], "folder.png is a folder"),
        (["--block=2"], "--block must be in 0 to 1, got 2"),
        (["--block=-3"], "--block must be in 0 to 1, got -3"),
        (["--model=small_swin"], "model must have blocks of divided attention, as a TimeSformer has, got VideoSwin"),
        (["--size=50"], "clip must have a height and width that the patch (16, 16) divides"),
    ],
)
def test_requests_that_cannot_be_met(
    video: MakeVideo,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    path, folder = video(), tmp_path / "folder.png"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["attention", str(path), MODEL, *(argument.format(folder=folder) for argument in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error[error.index("vtfast: error: ") :]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder.png", path.name]


@pytest.mark.parametrize("module", ["av", "PIL"])
def test_a_missing_extra_is_named(
    video: MakeVideo, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    path = video()
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["attention", str(path), MODEL, f"--output={tmp_path / 'out.png'}"]) == 2
    assert "vtfast[video]" in capsys.readouterr().err


def test_a_file_that_cannot_be_written(
    video: MakeVideo, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    path = video()
    monkeypatch.setattr(attention, "write_video", full)
    arguments = [f"--output={tmp_path / 'out.png'}", f"--video={tmp_path / 'out.gif'}"]
    assert main(["attention", str(path), MODEL, *arguments]) == 2
    assert "No space left on device" in capsys.readouterr().err
