import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from oracles import small_swin
from safetensors.torch import load_file, save_file

from vtfast import use_backend
from vtfast.cli import main, run
from vtfast.data import load_clips
from vtfast.models import model_config

MODEL = "--model=small_swin"
MakeVideo = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def expected_logits(path: Path, views: int = 1, crops: int = 1) -> torch.Tensor:  # [V, 7]
    clips = load_clips(path, model_config("small_swin").preprocessing, views=views, crops=crops)
    with torch.inference_mode():
        return small_swin()(clips)


@pytest.mark.parametrize(("views", "crops"), [(1, 1), (2, 1), (2, 3)])
def test_top_classes_are_the_mean_probabilities_of_the_views(
    video: MakeVideo, capsys: Capture, views: int, crops: int
) -> None:
    path = video()
    assert main(["run", str(path), MODEL, f"--views={views}x{crops}", "--top=3", "--json"]) == 0
    (result,) = lines(capsys.readouterr().out)
    scores, classes = expected_logits(path, views, crops).softmax(-1).mean(0).topk(3)
    assert result["video"] == str(path)
    assert result["views"] == views * crops
    assert [entry["class"] for entry in result["top"]] == classes.tolist()
    assert [entry["score"] for entry in result["top"]] == pytest.approx(scores.tolist(), rel=1e-4)


def test_text_output_has_labels_and_percentages(video: MakeVideo, tmp_path: Path, capsys: Capture) -> None:
    path, labels = video(), tmp_path / "labels.txt"
    labels.write_text("".join(f"label {index}\n" for index in range(7)))
    assert main(["run", str(path), MODEL, "--labels", str(labels)]) == 0
    out = capsys.readouterr().out.splitlines()
    probabilities = expected_logits(path)[0].softmax(-1)
    best = int(probabilities.argmax())
    assert len(out) == 6
    assert out[0] == str(path)
    assert out[1].split(maxsplit=1) == [f"{float(probabilities[best]):.2%}", f"label {best}"]


def test_labels_choose_the_size_of_the_head(video: MakeVideo, tmp_path: Path, capsys: Capture) -> None:
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps(["yes", "no", "maybe"]))
    assert main(["run", str(video()), MODEL, f"--labels={labels}", "--json"]) == 0
    (result,) = lines(capsys.readouterr().out)
    assert sorted(entry["label"] for entry in result["top"]) == ["maybe", "no", "yes"]


def test_random_weights_are_announced_and_the_same_in_every_run(video: MakeVideo, capsys: Capture) -> None:
    arguments = ["run", str(video()), "--model=random_swin", "--json"]
    outputs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        assert main(arguments) == 0
        outputs.append(capsys.readouterr())
    assert outputs[0].out == outputs[1].out
    assert "weights are random" in outputs[0].err


def test_checkpoint_is_used_and_nothing_is_said_about_random_weights(
    video: MakeVideo, tmp_path: Path, capsys: Capture
) -> None:
    path, weights = video(), tmp_path / "weights.safetensors"
    model = small_swin()
    torch.nn.init.constant_(model.head.bias, 0.0)
    model.head.bias.data[3] = 100.0
    save_file(model.state_dict(), weights)
    assert main(["run", str(path), MODEL, f"--checkpoint={weights}", "--json"]) == 0
    captured = capsys.readouterr()
    assert lines(captured.out)[0]["top"][0] == {"class": 3, "label": None, "score": pytest.approx(1.0)}
    assert "random" not in captured.err


def test_bad_files_are_named_and_the_others_go_on(video: MakeVideo, tmp_path: Path, capsys: Capture) -> None:
    empty, missing = tmp_path / "empty.mp4", tmp_path / "missing.mp4"
    empty.touch()
    first, last = video("first.mp4"), video("last.mkv")
    assert main(["run", *map(str, (first, empty, missing, last)), MODEL, "--json"]) == 1
    captured = capsys.readouterr()
    results = lines(captured.out)
    assert [Path(result["video"]).name for result in results] == ["first.mp4", "empty.mp4", "missing.mp4", "last.mkv"]
    assert [("top" in result) for result in results] == [True, False, False, True]
    assert results[1]["error"] == "empty file"
    assert f"vtfast: error: {empty}: empty file" in captured.err
    assert f"vtfast: error: {missing}: no such file" in captured.err
    assert "2 of 4 videos failed" in captured.err


def test_a_folder_stands_for_its_videos(video: MakeVideo, tmp_path: Path, capsys: Capture) -> None:
    for name in ("set/b.mp4", "set/a.mkv", "set/deeper/c.avi"):
        video(name)
    (tmp_path / "set" / "notes.txt").write_text("not a video")
    assert main(["run", str(tmp_path / "set"), str(tmp_path / "set" / "b.mp4"), MODEL, "--json"]) == 0
    names = [Path(result["video"]).name for result in lines(capsys.readouterr().out)]
    assert names == ["a.mkv", "b.mp4", "c.avi"]


def test_clips_may_stand_between_options(video: MakeVideo, capsys: Capture) -> None:
    first, second = video("a.mp4"), video("b.mp4")
    assert main(["run", str(first), MODEL, str(second), "--json"]) == 0
    assert [result["video"] for result in lines(capsys.readouterr().out)] == [str(first), str(second)]


def test_clip_options_override_what_was_published(video: MakeVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []

    def spy(path: Path, settings: object, **options: int) -> object:
        shapes.extend(clip.shape for clip in iter_clips(path, settings, **options))
        return iter_clips(path, settings, **options)

    iter_clips = run.iter_clips
    monkeypatch.setattr(run, "iter_clips", spy)
    assert main(["run", str(video()), MODEL, "--frames=6", "--stride=1", "--size=16"]) == 0
    assert shapes == [(1, 3, 6, 16, 16)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_features_file_holds_the_pooled_features_of_each_view(
    video: MakeVideo, tmp_path: Path, capsys: Capture, dtype: str
) -> None:
    paths, out = [video("a.mp4"), video("b.mkv", count=9)], tmp_path / "out.safetensors"
    arguments = [*map(str, paths), MODEL, f"--features={out}", "--views=2", f"--dtype={dtype}", "--backend=reference"]
    assert main(["run", *arguments]) == 0
    features = load_file(out)
    assert sorted(features) == ["a.mp4", "b.mkv"]
    model = small_swin().to(getattr(torch, dtype))
    for path in paths:
        clips = load_clips(path, model_config("small_swin").preprocessing, views=2).to(getattr(torch, dtype))
        with torch.inference_mode(), use_backend("reference"):
            # View by view, as the command does: a batch of two may round differently.
            expected = torch.cat([model.forward_features(clip[None]).mean(dim=(1, 2, 3)) for clip in clips])
        torch.testing.assert_close(features[path.name], expected)


def test_features_folder_resumes(video: MakeVideo, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    for name in ("set/a.mp4", "set/deeper/a.mp4"):
        video(name)
    arguments = ["run", str(tmp_path / "set"), MODEL, f"--features={out}"]
    assert main(arguments) == 0
    assert load_file(out / "deeper" / "a.mp4.safetensors")["deeper/a.mp4"].shape == (1, 128)
    capsys.readouterr()
    (out / "a.mp4.safetensors").unlink()
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [f"{tmp_path / 'set' / 'a.mp4'}: 1 x 128 features"]
    assert "1 of 2 videos have features already" in captured.err
    assert main([*arguments, "--frames=2"]) == 2
    assert "was made with frames 4, this run has 2" in capsys.readouterr().err


def test_an_interrupt_keeps_the_features_so_far(
    video: MakeVideo, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.safetensors"
    iter_clips = run.iter_clips

    def interrupted(path: Path, *arguments: object, **options: int) -> object:
        if path.name == "b.mp4":
            raise KeyboardInterrupt
        return iter_clips(path, *arguments, **options)

    monkeypatch.setattr(run, "iter_clips", interrupted)
    assert main(["run", str(video("a.mp4")), str(video("b.mp4")), MODEL, f"--features={out}"]) == 130
    assert list(load_file(out)) == ["a.mp4"]
    assert list(tmp_path.glob("*.partial")) == []
    assert capsys.readouterr().err.endswith("vtfast: interrupted\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=swin3d_tt"], "name must be a registered model, such as swin3d_t"),
        (["--labels=missing.txt"], "missing.txt: No such file"),
        (["--labels={labels}", "--num-classes=7"], "--labels names 2 classes, the model has 7"),
        (["--checkpoint=missing.pth"], "missing.pth"),
        (["--checkpoint={weights}"], "other.weight"),
        (["--features=missing/out.safetensors"], "missing is not a folder"),
        (["--features={labels}"], "must be a folder or end in .safetensors"),
        (["--compare", "--views=2"], "--compare runs one clip a video both ways: --views does not apply"),
        (["--compare", "--backend=native"], "--backend does not apply"),
        (["{empty_folder}"], "no videos in this folder"),
        (["{video}", "{other}/video.mp4", "--features={other}"], "are both called video.mp4"),
    ],
)
def test_requests_that_cannot_be_met(
    video: MakeVideo, tmp_path: Path, capsys: Capture, arguments: list[str], message: str
) -> None:
    names = {"labels": tmp_path / "labels.txt", "empty_folder": tmp_path / "none", "other": tmp_path / "other"}
    names["labels"].write_text("a\nb\n")
    names["empty_folder"].mkdir()
    names["weights"] = tmp_path / "weights.safetensors"
    save_file({"other.weight": torch.zeros(3)}, names["weights"])
    path = video()
    given = [argument.format(video=path, **names) for argument in arguments]
    assert main(["run", str(path), MODEL, *given]) == 2
    error = capsys.readouterr().err
    assert message in error[error.index("vtfast: error: ") :]
    assert "Traceback" not in error


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device(video: MakeVideo, capsys: Capture) -> None:
    assert main(["run", str(video()), MODEL, "--device=cuda"]) == 2
    assert "torch finds no CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option", ["--views=0", "--views=2x2", "--views=x", "--frames=0", "--framez=3", "--top=-1", "--dtype=int8"]
)
def test_options_out_of_range(option: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["run", "video.mp4", option])
    assert caught.value.code == 2
    assert option.partition("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "options", "extra"), [("av", [], "video"), ("safetensors", ["--features=out"], "safetensors")]
)
def test_a_missing_extra_is_named(
    video: MakeVideo, capsys: Capture, monkeypatch: pytest.MonkeyPatch, module: str, options: list[str], extra: str
) -> None:
    path = video()
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["run", str(path), MODEL, *options]) == 2
    assert f"vtfast[{extra}]" in capsys.readouterr().err


def test_threads(video: MakeVideo) -> None:
    before = torch.get_num_threads()
    try:
        assert main(["run", str(video()), MODEL, "--threads=1"]) == 0
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
