"""Names of classes out of a file."""

import json
from pathlib import Path
from typing import Any

from vtfast.cli.errors import UserError

__all__ = ["read_labels"]


def read_labels(path: Path) -> list[str]:
    """The class names in the order of the classes.

    Args:
        path: a text file with one name a line, or a JSON file with a list of names, an object {"0": name, ...} or an
            object {name: 0, ...}.

    Raises:
        UserError: the file cannot be read, or does not give each class from 0 a name.
    """
    try:
        text = path.read_text(encoding="utf-8")
        labels = _from_json(json.loads(text)) if path.suffix == ".json" else text.strip().splitlines()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    if not labels:
        raise UserError(f"{path}: no labels")
    return [label.strip() for label in labels]


def _from_json(content: Any) -> list[str]:
    if isinstance(content, list):
        return [str(name) for name in content]
    if not isinstance(content, dict):
        raise ValueError(f"labels must be a list or an object, got {type(content).__name__}")
    by_name = all(isinstance(value, int) for value in content.values())
    pairs = ((index, name) for name, index in content.items()) if by_name else content.items()
    names = {int(index): name for index, name in pairs}
    if sorted(names) != list(range(len(names))):
        raise ValueError(f"labels must number the classes from 0 to {len(names) - 1}, each once")
    # PyTorchVideo's list of the classes of Kinetics has its names in quotes once more.
    return [str(names[index]).strip('"') for index in range(len(names))]
