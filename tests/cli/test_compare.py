import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vtfast import _library, build_info
from vtfast.bench.peak_memory import peak_memory
from vtfast.cli import compare, main

MODEL = "--model=small_swin"
MakeVideo = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


@pytest.mark.requires_native
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_kernels_and_reference_agree_on_a_video(video: MakeVideo, capsys: Capture, dtype: str) -> None:
    assert main(["run", str(video()), MODEL, "--compare", "--runs=1", f"--dtype={dtype}", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["agrees"]
    assert result["shape"] == [1, 2, 1, 1, 128]
    assert result["relative"] <= result["tolerance"] == compare.TOLERANCES[dtype]
    assert result["instruction_set"] == build_info()["cpu_instruction_set"]
    assert result["compiled"]["seconds"] > 0
    assert result["speedup"] == result["reference"]["seconds"] / result["compiled"]["seconds"]


@pytest.mark.requires_native
def test_text_names_every_figure(video: MakeVideo, capsys: Capture) -> None:
    assert main(["demo", str(video()), MODEL, "--runs=1"]) == 0
    out = capsys.readouterr().out
    rows = [line.split("  ")[0] for line in out.splitlines()]
    assert rows == ["clip", "model", "features", "", "kernels", "time", "peak memory", "difference", "verdict"]
    assert "1 x 2 x 1 x 1 x 128" in out
    assert str(build_info()["cpu_instruction_set"]) in out
    assert "agrees" in out


@pytest.mark.requires_native
def test_a_difference_beyond_the_tolerance_fails(
    video: MakeVideo, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(compare.TOLERANCES, "float32", 0.0)
    assert main(["run", str(video()), MODEL, "--compare", "--runs=1"]) == 1
    assert "DIFFERS" in capsys.readouterr().out


@pytest.mark.requires_native
def test_a_bad_file_does_not_stop_the_others(video: MakeVideo, tmp_path: Path, capsys: Capture) -> None:
    missing = tmp_path / "missing.mp4"
    assert main(["run", str(missing), str(video()), MODEL, "--compare", "--runs=1", "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["agrees"]
    assert f"vtfast: error: {missing}: no such file" in captured.err


@pytest.mark.parametrize(("relative", "agrees"), [(1e-5, True), (1e-3, False), (float("nan"), False)])
def test_verdict(relative: float, agrees: bool) -> None:
    cost = compare.Cost(1.0, None)
    result = compare.Comparison((1,), 1.0, relative, 1e-4, cost, compare.Cost(3.0, None))
    assert result.agrees is agrees
    assert result.speedup == 3.0


def test_without_kernels_the_reason_is_said(video: MakeVideo, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_library._unavailable, "cpu", "they were left at home")
    assert main(["run", str(video()), MODEL, "--compare", "--runs=1"]) == 2
    assert "they were left at home" in capsys.readouterr().err


def test_peak_memory_counts_what_is_held_at_once() -> None:
    device, size = torch.device("cpu"), 32 * 2**20
    peak = peak_memory(lambda: torch.ones(size // 4) + torch.ones(size // 4), device)
    if peak is None:
        pytest.skip("this system does not reset the high-water mark")
    assert 2.9 * size < peak < 3.5 * size
    # What an earlier, larger piece of work needed is not counted again.
    assert peak_memory(lambda: torch.ones(size // 4), device) < 1.5 * size
