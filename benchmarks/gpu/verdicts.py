"""A pytest plugin: basic tests first, a JSON line a test as it ends, a new worker after a test that lost the device.

Loaded by `-p benchmarks.gpu.verdicts`. The lines are there even if pytest itself is ended, and a kernel that leaves
the device unusable fails its own test instead of all that follow in its process.
"""

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch

_LINES = 30  # of a failure

_FIRST = (
    "test_library.py", "test_grid_attention.py", "test_grid_attention_gradients.py", "test_pooling_attention.py",
    "test_depthwise_conv3d.py", "test_window_attention.py",
)  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--verdicts", metavar="FILE", help="append a JSON line a test to this file")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _FIRST.index(item.path.name) if item.path.name in _FIRST else len(_FIRST))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """In a worker, a process that lost its device ends here; pytest-xdist starts another."""
    report = yield
    if report.failed and hasattr(item.config, "workerinput") and _device_is_lost():
        _write(item.config, report.nodeid, "failed", f"the device is lost\n{report.longreprtext}")
        os._exit(1)
    return report


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Recorder(config))


class _Recorder:
    """Writes what the process that collects all reports comes to know."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.failed or report.skipped:
            _write(self.config, report.nodeid, report.outcome, report.longreprtext if report.failed else "")


def _device_is_lost() -> bool:
    if not torch.cuda.is_available():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def _write(config: pytest.Config, test: str, outcome: str, text: str) -> None:
    lines = text.splitlines()
    record = {"test": test, "outcome": outcome, "why": "\n".join(lines[-_LINES:])}
    with Path(config.getoption("--verdicts")).open("a") as file:
        file.write(json.dumps(record) + "\n")
