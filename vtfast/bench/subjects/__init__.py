"""One file a subject: adding a file here adds its tables to the report.

A suite is a module with `run(scope) -> list[Section]` and, where they differ from the rule, `ALLOCATORS`
(those under which it is measured, all by rule), `QUICK` (whether it belongs to a quick run, yes by rule) and
`draw(sections, path)` (a picture of its sections, none by rule).
"""

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

from benchmarks.allocator import ALLOCATORS
from benchmarks.report import Section
from benchmarks.scope import Scope


class Suite(Protocol):
    """What a module of this package offers."""

    def run(self, scope: Scope) -> list[Section]:
        """Measures and tabulates."""


def suite_names() -> list[str]:
    """The names of all suites, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def quick_suite_names() -> list[str]:
    """The names of those that a quick run takes."""
    return [name for name in suite_names() if getattr(load_suite(name), "QUICK", True)]


def load_suite(name: str) -> Suite:
    """The module.

    Raises:
        ValueError: there is no such suite.
    """
    if name not in suite_names():
        raise ValueError(f"suite must be one of {', '.join(suite_names())}, got {name!r}")
    return cast(Suite, importlib.import_module(f"{__name__}.{name}"))


def allocators_of(name: str) -> tuple[str, ...]:
    """The allocators under which a suite is measured."""
    return getattr(load_suite(name), "ALLOCATORS", ALLOCATORS)


def drawer_of(name: str) -> Callable[[list[dict[str, Any]], Path], None] | None:
    """What draws the picture of a suite's sections, if it has one."""
    return getattr(load_suite(name), "draw", None)
