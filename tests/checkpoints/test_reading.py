import sys
from pathlib import Path

import pytest
import torch
from oracles import small_swin

from vtfast.checkpoints import load_checkpoint, read_state_dict

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1, dtype=torch.int64)}


class Arbitrary:
    """What weights_only must not build."""


def assert_same(read: dict[str, torch.Tensor]) -> None:
    torch.testing.assert_close(read, WEIGHTS)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pyth"])
def test_torch_files(tmp_path: Path, suffix: str) -> None:
    torch.save(WEIGHTS, tmp_path / f"file{suffix}")
    assert_same(read_state_dict(tmp_path / f"file{suffix}"))
    assert_same(read_state_dict(str(tmp_path / f"file{suffix}")))


def test_torch_files_of_the_old_format(tmp_path: Path) -> None:
    torch.save({"state_dict": WEIGHTS}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert_same(read_state_dict(tmp_path / "old.pth"))


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state", "module"])
def test_wrappers(tmp_path: Path, wrapper: str) -> None:
    torch.save({wrapper: WEIGHTS, "optimizer": {"lr": 1.0}, "epoch": 3}, tmp_path / "file.pth")
    assert_same(read_state_dict(tmp_path / "file.pth"))


def test_safetensors(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(WEIGHTS, tmp_path / "file.safetensors")
    assert_same(read_state_dict(tmp_path / "file.safetensors"))
    model = small_swin()
    safetensors.save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = small_swin(num_classes=7)
    torch.nn.init.zeros_(other.norm.weight)
    load_checkpoint(other, tmp_path / "model.safetensors")
    assert torch.equal(other.norm.weight, model.norm.weight)


def test_safetensors_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file.safetensors").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"needs the safetensors package: pip install 'vtfast\[safetensors\]'"):
        read_state_dict(tmp_path / "file.safetensors")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"checkpoint must be a file, got .*nothing\.pth"):
        read_state_dict(tmp_path / "nothing.pth")
    with pytest.raises(FileNotFoundError, match="checkpoint must be a file"):
        read_state_dict(tmp_path)


@pytest.mark.parametrize("name", ["file.pth", "file.safetensors"])
@pytest.mark.parametrize(
    "content",
    [b"", b"not a checkpoint", b"abseiling\n", b"\x80\x02}q\x00."],
    ids=["empty", "text", "labels", "pickle"],
)
def test_broken_file(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} (is not a readable|does not load|must hold)"):
        read_state_dict(tmp_path / name)


def test_truncated_file(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, tmp_path / "file.pth")
    whole = (tmp_path / "file.pth").read_bytes()
    (tmp_path / "file.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"file\.pth (is not a readable checkpoint|does not load)"):
        read_state_dict(tmp_path / "file.pth")


def test_python_objects_are_never_built(tmp_path: Path) -> None:
    torch.save({"state_dict": WEIGHTS, "config": Arbitrary()}, tmp_path / "file.pth")
    with pytest.raises(ValueError, match=r"does not load with weights_only=True.*save its state dict alone"):
        read_state_dict(tmp_path / "file.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "must hold a state dict, got an empty dict"),
        ([torch.zeros(1)], "must hold a state dict, got list"),
        ({"a": torch.zeros(1), "epoch": 3}, "must hold a state dict of tensors, got 'epoch': int in it"),
    ],
    ids=["empty", "list", "mixed"],
)
def test_no_state_dict(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(ValueError, match=message):
        read_state_dict(tmp_path / "file.pth")
