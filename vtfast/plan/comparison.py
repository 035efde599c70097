"""A predicted time beside a measured one."""

from dataclasses import dataclass

__all__ = ["TOLERANCE", "Comparison"]

# How far a prediction may be off, as a share of the measured time.
TOLERANCE = 0.25


@dataclass(frozen=True)
class Comparison:
    """One piece of work.

    Args:
        title: what it is.
        kind: "op" or "model".
        predicted: seconds.
        measured: seconds.
    """

    title: str
    kind: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """How far the prediction is off, as a share of the measured time; positive where it is slower."""
        return self.predicted / self.measured - 1.0

    @property
    def within(self) -> bool:
        """Whether that is within `TOLERANCE`."""
        return abs(self.error) <= TOLERANCE
