from dataclasses import replace

import pytest
import torch

from benchmarks.measure import Effort, NotSupportedError, relative_error, run_case
from benchmarks.model_cases import FORWARD, PURE_BFLOAT16, TRAINING, model_cases
from benchmarks.scope import Scope
from benchmarks.shapes import ModelShape
from benchmarks.timesformer_upstream import HUGGING_FACE, LUCIDRAINS, PLAIN

SMALL = ModelShape(
    "timesformer_base", (2, 3, 4, 32, 32), {"embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}
)
SMALL_LUCIDRAINS = replace(SMALL, model="timesformer_lucidrains", config={**SMALL.config, "head_dim": 8})


@pytest.mark.parametrize("work", [FORWARD, TRAINING])
@pytest.mark.parametrize(
    ("shape", "upstream"),
    [(SMALL, HUGGING_FACE), (SMALL, PLAIN), (SMALL_LUCIDRAINS, LUCIDRAINS)],
    ids=["transformers", "plain", "lucidrains"],
)
def test_every_model_computes_the_same(shape, upstream, work):
    (case,) = [case for case in model_cases(Scope(False, 2, compile=False), shape, upstream) if case.name == work]
    try:
        results = {result.way: result for result in run_case(case, Effort(0.0, 1, 1))}
    except NotSupportedError as error:
        pytest.skip(str(error))
    assert set(results) == {"eager", *upstream.patched, "vtfast", "linear layers"}
    assert {way for way, result in results.items() if result.agrees} == {"eager", *upstream.patched, "vtfast"}


def test_what_an_upstream_cannot_do_has_a_reason():
    cases = model_cases(Scope(False, 2, compile=False), SMALL_LUCIDRAINS, LUCIDRAINS)
    (case,) = [case for case in cases if case.name == PURE_BFLOAT16]
    try:
        eager, vtfast, _ = run_case(case, Effort(0.0, 1, 1))
    except NotSupportedError as error:
        pytest.skip(str(error))
    assert "rotary tables are float32" in eager.note
    assert vtfast.agrees


def test_the_plain_model_is_that_of_transformers():
    try:
        theirs = HUGGING_FACE.make(SMALL)
    except NotSupportedError as error:
        pytest.skip(str(error))
    plain = PLAIN.make(SMALL)
    plain.load_state_dict(HUGGING_FACE.convert(theirs.state_dict(), HUGGING_FACE.ours(SMALL)))
    clip = torch.randn(SMALL.clip)
    assert relative_error(plain.eval()(clip), theirs.eval()(clip)) < 1e-5
