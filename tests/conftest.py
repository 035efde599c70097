"""What holds in every test: the device, fixed seeds, two threads, and memory that is NaN until a kernel writes it."""

from collections.abc import Iterator

import pytest
import target
import torch

THREADS = 2  # whatever the test before has set
torch.set_num_threads(THREADS)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", choices=target.NAMES, default="cpu", help="what tests/target.py says (default: cpu)")


def pytest_configure(config: pytest.Config) -> None:
    device = config.getoption("--device")
    target.choose(device)
    reason = target.why_unavailable()
    if device != "cpu" and reason is not None:
        raise pytest.UsageError(f"--device {device}: {reason}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On anything but the CPU, only the tests that are made for it."""
    if config.getoption("--device") == "cpu":
        return
    config.hook.pytest_deselected(items=[item for item in items if not _runs_anywhere(item)])
    items[:] = filter(_runs_anywhere, items)


def _runs_anywhere(item: pytest.Item) -> bool:
    return item.get_closest_marker("every_device") is not None


@pytest.fixture(autouse=True)
def deterministic_and_poisoned() -> Iterator[None]:
    """Deterministic mode fills what `torch.empty` returns, in C++ too, with NaN (integers with their maximum)."""
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = fill


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips tests of the compiled kernels where none can run; tests/test_library.py fails if they should."""
    if item.get_closest_marker("requires_cuda") is not None and target.DEVICE.type != "cuda":
        pytest.skip("needs a GPU and --device cuda")
    reason = target.why_unavailable()
    if reason is not None and item.get_closest_marker("requires_native") is not None:
        pytest.skip(reason)
