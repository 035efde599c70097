"""Which operators a function calls, and with what."""

from collections.abc import Callable
from typing import Any

from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

Call = tuple[tuple[Any, ...], dict[str, Any]]


class _Recorder(TorchDispatchMode):
    """Keeps the first call of each operator that is wanted."""

    def __init__(self, wanted: Callable[[OpOverload], bool]) -> None:
        super().__init__()
        self.wanted = wanted
        self.calls: dict[OpOverload, Call] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.wanted(function):
            self.calls.setdefault(function, (args, kwargs or {}))
        return function(*args, **(kwargs or {}))


def recorded_calls(call: Callable[[], object], wanted: Callable[[OpOverload], bool]) -> dict[OpOverload, Call]:
    """The arguments of the first call of each operator that is wanted."""
    recorder = _Recorder(wanted)
    with recorder:
        call()
    return recorder.calls
