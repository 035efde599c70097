"""A progress bar on a terminal, next to results that are printed as they come."""

import sys
from types import TracebackType
from typing import Any

__all__ = ["Progress"]


class Progress:
    """Counts work on stderr if that is a terminal and tqdm is installed; otherwise it only prints results.

    Args:
        total: units of work; a single one gets no bar.
        unit: what they are called.
    """

    def __init__(self, total: int, unit: str) -> None:
        self._bar: Any = None
        if total < 2 or not sys.stderr.isatty():
            return
        try:
            from tqdm import tqdm  # type: ignore[import-untyped]
        except ImportError:
            return
        self._bar = tqdm(total=total, unit=unit, leave=False, dynamic_ncols=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, amount: int = 1) -> None:
        """Notes work as done."""
        if self._bar is not None:
            self._bar.update(amount)

    def reach(self, done: int) -> None:
        """Notes that `done` units are done in all, also where something failed half-way."""
        if self._bar is not None:
            self._bar.update(done - self._bar.n)

    def print(self, text: str, *, error: bool = False) -> None:
        """Prints a line to stdout, or to stderr if `error`, without tearing the bar."""
        stream = sys.stderr if error else sys.stdout
        if self._bar is not None:
            self._bar.write(text, file=stream)
        else:
            print(text, file=stream, flush=True)
