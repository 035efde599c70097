"""How a command says that it cannot do what it was asked."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["UserError", "as_user_error"]


class UserError(Exception):
    """A request that cannot be carried out; `main` prints the message without a traceback."""


@contextmanager
def as_user_error(*kinds: type[Exception]) -> Iterator[None]:
    """Turns exceptions of these kinds inside the block into a `UserError` with the same message."""
    try:
        yield
    except kinds as error:
        raise UserError(str(error) or type(error).__name__) from error
