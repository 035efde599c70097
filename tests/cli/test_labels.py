import json
from pathlib import Path
from typing import Any

import pytest

from vtfast.cli.errors import UserError
from vtfast.cli.labels import read_labels


def test_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("riding a bike\n  élan \njuggling\n\n", encoding="utf-8")
    assert read_labels(path) == ["riding a bike", "élan", "juggling"]


@pytest.mark.parametrize(
    "content",
    [["a", "b b", "c"], {"2": "c", "0": "a", "1": "b b"}, {"c": 2, "a": 0, "b b": 1}, {'"b b"': 1, "a": 0, "c": 2}],
    ids=["list", "by-index", "by-name", "quoted-names"],
)
def test_json(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(content))
    assert read_labels(path) == ["a", "b b", "c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "no labels"),
        ("3", "must be a list or an object, got int"),
        ('{"a": 0, "b": 2}', "must number the classes from 0 to 1"),
        ("{", "Expecting property name"),
        ('{"a": "b"}', "invalid literal"),
    ],
)
def test_json_that_names_no_classes(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_labels(path)


def test_a_binary_file_is_no_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(bytes(range(128, 256)))
    with pytest.raises(UserError, match="can't decode"):
        read_labels(path)
