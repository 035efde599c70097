"""What a check of an operation found."""

from dataclasses import dataclass

from vtfast.testing.table import aligned


@dataclass(frozen=True)
class Row:
    """One result or gradient, held against the reference in float64.

    Args:
        name: `out0`, `out1`... of a result, `d_<name>` of the gradient of an input.
        dtype: of the tensor, as in "bfloat16".
        error: largest absolute error; infinite where shape, dtype, NaN or infinities differ, or the tensor is missing.
        plain_error: that of plain PyTorch in the same dtype.
        allowed: largest error that passes.
        index: where the largest error, or the first NaN out of place, is; None without one.
        wanted: the value of the reference there.
        came: the value of the operation there.
        fault: what is wrong; None if nothing is.
    """

    name: str
    dtype: str
    error: float
    plain_error: float
    allowed: float
    index: tuple[int, ...] | None
    wanted: float | None
    came: float | None
    fault: str | None

    @property
    def passed(self) -> bool:
        """Whether the tensor is as accurate as it has to be."""
        return self.fault is None

    @property
    def share(self) -> float:
        """The error as a share of what is allowed: at most 1 where the row passes."""
        if self.error == 0:
            return 0.0
        return self.error / self.allowed if self.allowed else float("inf")


@dataclass(frozen=True)
class Check:
    """One property of the operation.

    Args:
        name: "runs", "repeatable", "fresh memory", "layouts", "nan", "opcheck" or "gradcheck".
        fault: what is wrong; None if nothing is.
    """

    name: str
    fault: str | None

    @property
    def passed(self) -> bool:
        """Whether the property holds."""
        return self.fault is None


@dataclass(frozen=True)
class Report:
    """What `check_op` found; `str()` makes a table of it.

    Args:
        op: name of the operation.
        seed: of everything that was drawn.
        rows: accuracy, a row a tensor.
        checks: all that was looked at besides.
    """

    op: str
    seed: int
    rows: tuple[Row, ...]
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    @property
    def faults(self) -> list[str]:
        """All that is wrong, each with the name of what it is wrong with."""
        parts: tuple[Row | Check, ...] = (*self.rows, *self.checks)
        return [f"{part.name}: {part.fault}" for part in parts if part.fault is not None]

    @property
    def worst(self) -> Row | None:
        """The row with the largest error for what is allowed."""
        return max(self.rows, key=lambda row: row.share, default=None)

    def raise_if_failed(self) -> None:
        """Raises AssertionError with all that is wrong, if anything is."""
        if not self.passed:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        lines: list[tuple[str, ...]] = [
            ("tensor", "dtype", "error", "plain PyTorch's", "allowed", "worst at", "verdict")
        ]
        for row in self.rows:
            numbers = (f"{number:.2e}" for number in (row.error, row.plain_error, row.allowed))
            index = "-" if row.index is None else str(list(row.index))
            lines.append((row.name, row.dtype, *numbers, index, "ok" if row.passed else "FAILED"))
        text = [f"{self.op}, seed {self.seed}: {'passed' if self.passed else 'FAILED'}"]
        if self.rows:
            text.append(aligned(lines, right=(2, 3, 4)))
        if self.checks:
            text.append(", ".join(f"{check.name} {'ok' if check.passed else 'FAILED'}" for check in self.checks))
        return "\n".join([*text, *self.faults])
