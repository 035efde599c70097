"""One case of an operation: whether a compiled kernel takes it, and whether the kernel is right."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch._ops import OpOverload

from vtfast._backend import NO_KERNEL
from vtfast.check.cases import SUBJECTS
from vtfast.check.problems.problem import Problem, on_backend
from vtfast.testing import Report, check_op
from vtfast.testing.calls import recorded_calls
from vtfast.testing.case import Results


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Args:
        op: the operation.
        dtype: as in "bfloat16".
        case: number of the case.
        seed: what it was drawn from.
        device: "cpu" or "cuda".
        settings: of the problem, in words.
        seconds: that the check took.
        report: what was found; None where no compiled kernel takes the problem.
        untaken: why none does; None where one does.
    """

    op: str
    dtype: str
    case: int
    seed: int
    device: str
    settings: str
    seconds: float
    report: Report | None
    untaken: str | None

    @property
    def passed(self) -> bool:
        """Whether nothing was wrong; also where no kernel takes the problem, which is for `untaken` to say."""
        return self.report is None or self.report.passed

    @property
    def share(self) -> float:
        """The worst error as a share of what is allowed."""
        worst = self.report.worst if self.report is not None else None
        return worst.share if worst is not None else 0.0

    @property
    def command(self) -> str:
        """The command that runs this case alone."""
        where = "" if self.device == "cpu" else f" --device {self.device}"
        return f"vtfast check --op {self.op} --dtype {self.dtype} --case {self.case} --seed {self.seed}{where}"


def run_case(op: str, case: int, seed: int, dtype: torch.dtype, device: torch.device, opcheck: bool) -> Outcome:
    """Checks one case of an operation with the compiled kernels.

    Args:
        op: its name in `vtfast.ops`.
        case: number of the case: first the fixed ones, from there on drawn from the seed.
        seed: of what is drawn.
        dtype: of the tensors.
        device: of the tensors.
        opcheck: whether `torch.library.opcheck` runs too, which takes longer than all else.
    """
    start, subject = time.perf_counter(), SUBJECTS[op]
    settings = subject.settings(case, seed, device)
    problem = subject.problem(case, seed, dtype, device)
    report, untaken = None, why_untaken(problem)
    if untaken is None:
        report = check_problem(
            problem,
            seed=seed,
            threads=(1, 2, 3) if subject.any_threads(settings) else (),
            nan=subject.nan(settings),
            operators=operators_of(problem) if opcheck else (),
            gradcheck=dtype == torch.float64,
        )
    words = ", ".join(f"{name} {value}" for name, value in settings.items())
    name = str(dtype).removeprefix("torch.")
    return Outcome(op, name, case, seed, device.type, words, time.perf_counter() - start, report, untaken)


def why_untaken(problem: Problem) -> str | None:
    """Why no compiled kernel takes the problem; None if one does."""
    try:
        with torch.no_grad():
            _native(problem)
    except Exception as error:
        # Any other error is the kernel's, which the check meets again and reports.
        return str(error) if str(error).startswith(NO_KERNEL) else None
    return None


def operators_of(problem: Problem) -> list[OpOverload]:
    """The operators of the library that the operation calls in its forward."""
    return list(recorded_calls(lambda: _native(problem), lambda operator: operator.namespace == "vtfast"))


def check_problem(problem: Problem, **options: Any) -> Report:
    """`check_op` of a problem with the compiled kernels; `options` are those of `check_op`."""
    operation = problem.operation
    return check_op(
        on_backend(operation.function, "native"),
        operation.reference,
        problem.leaves,
        settings=problem.settings,
        grads_out=problem.grads_out,
        terms=operation.terms(problem),
        **options,
    )


def _native(problem: Problem) -> Results:
    return on_backend(problem.operation.function, "native")(**problem.leaves, **problem.settings)
