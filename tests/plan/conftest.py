from collections.abc import Iterator

import pytest
from torch._subclasses.fake_tensor import FakeTensorMode


@pytest.fixture
def fake() -> Iterator[None]:
    """Tensors without data, which cost nothing to compute with."""
    with FakeTensorMode():
        yield
