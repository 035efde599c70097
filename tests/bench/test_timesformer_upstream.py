from dataclasses import replace

import pytest
import torch

from vtfast.bench.measure import Effort, NotSupportedError, relative_error, run_case
from vtfast.bench.shapes import ModelShape
from vtfast.bench.subjects import models
from vtfast.bench.subjects.subject import MODES
from vtfast.bench.upstreams.timesformer import HUGGING_FACE, LUCIDRAINS, PLAIN

SMALL = ModelShape(
    "timesformer_base", (2, 3, 4, 32, 32), {"embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}
)
SMALL_LUCIDRAINS = replace(SMALL, model="timesformer_lucidrains", config={**SMALL.config, "head_dim": 8})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("shape", "upstream"),
    [(SMALL, HUGGING_FACE), (SMALL, PLAIN), (SMALL_LUCIDRAINS, LUCIDRAINS)],
    ids=["transformers", "plain", "lucidrains"],
)
def test_every_model_computes_the_same(shape, upstream, mode, monkeypatch):
    monkeypatch.setattr(models, "upstream_of", lambda name: upstream)
    case = models.case_of(shape, "float32", mode, ("eager", *upstream.patched, "vtfast"))
    try:
        results = {result.way: result for result in run_case(case, Effort(0.0, 1, 1))}
    except NotSupportedError as error:
        pytest.skip(str(error))
    assert set(results) == {"eager", *upstream.patched, "vtfast", "linear layers", "GEMM float32"}
    assert {way for way, result in results.items() if result.agrees} == {"eager", *upstream.patched, "vtfast"}


def test_what_an_upstream_cannot_do_has_a_reason():
    case = models.case_of(SMALL_LUCIDRAINS, "bfloat16", MODES[0], ("eager", "vtfast"))
    try:
        eager, vtfast, *_ = run_case(case, Effort(0.0, 1, 1))
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
