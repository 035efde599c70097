import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch

import vtfast
from vtfast.cli import main

Capture = pytest.CaptureFixture[str]


def test_info_as_json_is_build_info_and_this_process(capsys: Capture) -> None:
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["build"] == vtfast.build_info()
    assert facts["vtfast"] == vtfast.__version__
    assert facts["torch"] == torch.__version__
    assert facts["threads"] == torch.get_num_threads()


def test_info_as_text_lists_the_instruction_sets(capsys: Capture) -> None:
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    build = vtfast.build_info()
    assert f"CPU capability {build['cpu_capability']}" in out
    for name in build["cpu_supported"]:
        assert f"{name}: {'built' if name in build['cpu_built'] else 'not built'}" in out


@pytest.mark.parametrize(
    ("backend", "unavailable", "expected"),
    [
        ("reference", None, "reference: PyTorch, as asked for"),
        ("auto", None, "auto: compiled kernels (avx2) on the CPU"),
        ("auto", "no luck", "auto: the reference, because no luck"),
        ("native", "no luck", "native: an error, because no luck"),
    ],
)
def test_info_says_what_would_run_and_why(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, backend: str, unavailable: str | None, expected: str
) -> None:
    build = vtfast.build_info() | {"unavailable": unavailable, "cpu_instruction_set": None if unavailable else "avx2"}
    monkeypatch.setattr("vtfast.cli.info.build_info", lambda: build)
    with vtfast.use_backend(backend):
        assert main(["info"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split(maxsplit=1) == ["backend", expected]


@pytest.mark.parametrize(
    ("cuda", "expected"),
    [
        ({"built": False}, "not built"),
        ({"loaded": True, "unavailable": None}, "built with NVIDIA 13.0.88 for 8.0, 9.0+PTX, loaded"),
        (
            {"loaded": False, "unavailable": "no luck"},
            "built with NVIDIA 13.0.88 for 8.0, 9.0+PTX, not loaded: no luck",
        ),
    ],
)
def test_info_says_what_became_of_the_cuda_kernels(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, cuda: dict[str, Any], expected: str
) -> None:
    built = {"built": True, "compiler": "NVIDIA 13.0.88", "architectures": ["8.0", "9.0+PTX"]}
    build = vtfast.build_info() | {"cuda": built | cuda}
    monkeypatch.setattr("vtfast.cli.info.build_info", lambda: build)
    assert main(["info"]) == 0
    assert f"cuda kernels  {expected}\n" in capsys.readouterr().out


def test_models(capsys: Capture) -> None:
    assert main(["models", "swin3d_?"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert names == ["swin3d_b", "swin3d_l", "swin3d_s", "swin3d_t"]
    assert main(["models", "small_swin", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["num_classes"] == 7
    assert row["preprocessing"]["crop"] == 32
    assert main(["models", "resnet*"]) == 2
    assert "got 'resnet*'" in capsys.readouterr().err


def test_version_and_module_entry_point() -> None:
    done = subprocess.run([sys.executable, "-m", "vtfast", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"vtfast {vtfast.__version__}\n"


def test_a_reader_that_goes_away_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["info"]) == 1
    assert capsys.readouterr().err == ""
