import json

import pytest

from vtfast.cli import main
from vtfast.plan.comparison import Comparison
from vtfast.plan.study import PREDICTED

Capture = pytest.CaptureFixture[str]

pytestmark = pytest.mark.requires_native

SMALL = ["plan", "--model", "swin3d_t", "--frames", "4", "--size", "64", "--batch", "2"]


def test_plan_as_text_says_in_every_line_that_it_is_a_prediction(capsys: Capture) -> None:
    assert main([*SMALL, "--all-gpus"]) == 0
    out, err = capsys.readouterr()
    assert PREDICTED in out
    assert PREDICTED in err
    assert all(line.startswith("predicted") for line in out.splitlines())
    assert "b200" in out
    assert "2 x 3 x 4 x 64 x 64" in out


def test_plan_of_one_gpu_names_parts_bounds_and_the_largest_clip(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The search is tested where it stands; here it would take several seconds.
    monkeypatch.setattr("vtfast.plan.planning.MODES", ("inference",))
    assert main([*SMALL, "--gpu", "l4", "--gpus", "4", "--optimizer", "adamw", "--checkpointing"]) == 0
    out = capsys.readouterr().out
    for wanted in (
        "training step, checkpointing", "clips/s", "bound", "linear layers", "gradients between GPUs", "optimizer",
        "activations", "largest clip that fits", "of 24 GB: fits",
    ):  # fmt: skip
        assert wanted in out


def test_plan_as_json(capsys: Capture) -> None:
    assert main([*SMALL, "--all-gpus", "--json", "--dtype", "autocast"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["machine"] for row in rows][:2] == ["a100-40gb", "a100-80gb"]
    assert all(row["note"] == PREDICTED for row in rows)
    assert rows[0]["training"]["seconds"] > rows[0]["inference"]["seconds"] > 0
    assert rows[0]["inference"]["memory"]["weights"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "nope"], "name must be a registered model"),
        (["--model", "uniformer_s", "--size", "16"], "clip must have at least 32 x 32 pixels"),
        (["--gpu", "l4", "--gpus", "16"], "gpus must be at most 8 for l4, got 16"),
    ],
)
def test_plan_refuses_with_a_reason(capsys: Capture, options: list[str], message: str) -> None:
    size = [] if "--size" in options else ["--size", "64"]
    model = [] if "--model" in options else ["--model", "swin3d_t"]
    assert main(["plan", *model, *size, "--frames", "4", *options]) == 2
    assert message in capsys.readouterr().err


def test_plan_validate_exits_with_what_it_found(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    right, wrong = Comparison("right", "op", 1.0, 1.1), Comparison("wrong", "op", 1.0, 2.0)
    monkeypatch.setattr("vtfast.plan.validate.validate", lambda: iter([right]))
    assert main(["plan", "--validate"]) == 0
    assert "right" in capsys.readouterr().out
    monkeypatch.setattr("vtfast.plan.validate.validate", lambda: iter([right, wrong]))
    assert main(["plan", "--validate", "--json"]) == 1
    out, err = capsys.readouterr()
    assert [json.loads(line)["within"] for line in out.splitlines()] == [True, False]
    assert "1 predictions are off by more than 25%" in err
