"""The cases of `vtfast check`: every operation has some, they repeat, and a kernel that takes none is said to."""

from dataclasses import replace

import pytest
import torch

from vtfast import ops
from vtfast.check.cases import SUBJECTS
from vtfast.check.run import check_problem, operators_of, why_untaken

CPU = torch.device("cpu")
every_op = pytest.mark.parametrize("op", SUBJECTS)


def test_every_operation_is_checked() -> None:
    functions = {name for name in ops.__all__ if name not in ("TokenPool", "pooled_grid")}
    assert set(SUBJECTS) == functions


@every_op
def test_a_case_is_the_same_problem_every_time(op: str) -> None:
    subject = SUBJECTS[op]
    first_drawn = len(subject.fixed)
    settings = [subject.settings(first_drawn + i, seed, CPU) for seed in (0, 1) for i in range(20)]
    assert settings == [subject.settings(first_drawn + i, seed, CPU) for seed in (0, 1) for i in range(20)]
    assert len({str(s) for s in settings}) > 35
    problems = [subject.problem(first_drawn + 3, seed, torch.float32, CPU) for seed in (0, 0, 1)]
    assert torch.equal(problems[0].tokens, problems[1].tokens)
    assert problems[0].tokens.shape != problems[2].tokens.shape or not torch.equal(
        problems[0].tokens, problems[2].tokens
    )


@every_op
def test_terms_are_named_as_results_and_gradients(op: str) -> None:
    for case in range(len(SUBJECTS[op].fixed) + 10):
        problem = SUBJECTS[op].problem(case, 0, torch.float32, CPU)
        assert problem.operation.terms(problem).keys() == problem.zero_terms().keys()


@pytest.mark.requires_native
@every_op
def test_cases_drawn_from_a_seed_pass(op: str) -> None:
    subject = SUBJECTS[op]
    for case in range(len(subject.fixed), len(subject.fixed) + 2):
        settings = subject.settings(case, 5, CPU)
        problem = subject.problem(case, 5, torch.bfloat16, CPU)
        assert why_untaken(problem) is None
        check_problem(problem, threads=(), nan=subject.nan(settings)).raise_if_failed()


@pytest.mark.requires_native
def test_a_wrong_kernel_is_found() -> None:
    problem = SUBJECTS["pool_tokens"].problem(0, 0, torch.float32, CPU)

    def wrong(**arguments: torch.Tensor) -> torch.Tensor:
        return ops.pool_tokens(**(arguments | {"norm_bias": 1.001 * arguments["norm_bias"]}))

    spoilt = replace(problem, operation=replace(problem.operation, function=wrong))
    report = check_problem(spoilt, threads=())
    assert {row.name for row in report.rows if not row.passed} == {"out0", "d_norm_bias"}


@pytest.mark.requires_native
def test_operators_behind_an_operation() -> None:
    problem = SUBJECTS["divided_attention"].problem(0, 0, torch.float32, CPU)
    assert {str(operator) for operator in operators_of(problem)} == {
        "vtfast.rotary_embedding.default",
        "vtfast.grid_attention.default",
    }


def test_a_problem_that_no_kernel_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtfast._library.why_unavailable", lambda device: "no luck")
    problem = SUBJECTS["depthwise_conv3d"].problem(0, 0, torch.float32, CPU)
    assert why_untaken(problem) == "no compiled kernel for depthwise_conv3d: no luck"
