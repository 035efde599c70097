"""What holds in every test: fixed seeds, two threads, and fresh memory that is NaN until a kernel writes it."""

from collections.abc import Iterator

import pytest
import torch

from vtfast import _library

torch.set_num_threads(2)


@pytest.fixture(autouse=True)
def deterministic_and_poisoned() -> Iterator[None]:
    """Deterministic mode fills what `torch.empty` returns, in C++ too, with NaN (integers with their maximum)."""
    torch.manual_seed(0)
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = fill


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips tests of the compiled kernels where none can run; tests/test_library.py fails if they should."""
    reason = _library.why_unavailable()
    if reason is not None and item.get_closest_marker("requires_native") is not None:
        pytest.skip(reason)
