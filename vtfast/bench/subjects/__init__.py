"""What can be measured: one file an operation or a few of a kind, and all models. A file here adds its subjects."""

import fnmatch
import importlib
import pkgutil
from collections.abc import Sequence

from vtfast.bench.subjects import models
from vtfast.bench.subjects.subject import Subject

__all__ = ["Subject", "find_subjects", "op_names", "subject_named"]


def op_names() -> list[str]:
    """The names of the operations, in order of the files."""
    return [subject.name for subject in _operations()]


def find_subjects(patterns: Sequence[str], names: Sequence[str], what: str) -> list[Subject]:
    """Those whose names match one of several shell patterns.

    Args:
        patterns: shell patterns.
        names: of all there are.
        what: the option that the patterns come from, for the message.

    Raises:
        ValueError: a pattern matches none.
    """
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ValueError(f"{what} must match one of {', '.join(names)}, got {pattern!r}")
    return [subject_named(name) for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def subject_named(name: str) -> Subject:
    """An operation or a model.

    Raises:
        ValueError: there is neither.
    """
    for subject in _operations():
        if subject.name == name:
            return subject
    return models.subject_of(name)


def _operations() -> list[Subject]:
    found: list[Subject] = []
    for module in pkgutil.iter_modules(__path__):
        found += getattr(importlib.import_module(f"{__name__}.{module.name}"), "SUBJECTS", ())
    return found
