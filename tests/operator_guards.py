"""What the compiled operators refuse when they are called without the checks of `vtfast.ops`."""

from typing import Any

import pytest
from target import DEVICE
from torch import Tensor


def rejects(operator: Any, arguments: dict[str, Any], changed: dict[str, Any], message: str) -> None:
    """The operator takes `arguments`, on DEVICE, and raises `message` for those with some `changed`."""

    def call(**arguments: Any) -> None:
        operator(**{name: v.to(DEVICE) if isinstance(v, Tensor) else v for name, v in arguments.items()})

    call(**arguments)
    with pytest.raises(RuntimeError, match=message):
        call(**(arguments | changed))
