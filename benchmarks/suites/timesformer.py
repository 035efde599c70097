"""TimeSformers as a whole: those of transformers and timesformer-pytorch against vtfast's with the same weights."""

from benchmarks.measure import NotSupportedError
from benchmarks.model_cases import NOTES, model_cases
from benchmarks.report import Section, timing_section
from benchmarks.scope import Scope
from benchmarks.shapes import TIMESFORMER_BASE, TIMESFORMER_LUCIDRAINS, ModelShape
from benchmarks.timesformer_upstream import LUCIDRAINS, best_upstream
from benchmarks.upstream import Upstream

QUICK = False

_SDPA = "`SDPA` is the same model with the attention inside each group patched to `scaled_dot_product_attention`."


def run(scope: Scope) -> list[Section]:
    """Inference in three precisions and a training step of each."""
    upstream = best_upstream()
    return [
        _section(scope, TIMESFORMER_BASE, upstream, f"Of {upstream.name}. {NOTES} {_SDPA}"),
        _section(scope, TIMESFORMER_LUCIDRAINS, LUCIDRAINS, f"Of {LUCIDRAINS.name}. {NOTES}"),
    ]


def _section(scope: Scope, shape: ModelShape, upstream: Upstream, notes: str) -> Section:
    title, cases = f"Model {shape.name}", model_cases(scope, shape, upstream)
    try:
        return timing_section(title, notes, cases, scope.model_effort)
    except NotSupportedError as error:
        return Section(title, f"Skipped: {error}.", [""], [])
