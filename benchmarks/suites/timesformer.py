"""TimeSformers as a whole: those of transformers and timesformer-pytorch against vtfast's with the same weights."""

from benchmarks.measure import NotSupportedError
from benchmarks.model_cases import NOTES, model_cases
from benchmarks.report import Section, timing_section
from benchmarks.scope import Scope
from benchmarks.shapes import TIMESFORMER_BASE, TIMESFORMER_LUCIDRAINS, ModelShape
from benchmarks.timesformer_upstream import LUCIDRAINS, best_upstream
from benchmarks.upstream import Upstream

_SDPA = "`SDPA` is the same model with the attention inside each group patched to `scaled_dot_product_attention`."


def run(scope: Scope) -> list[Section]:
    """Inference in three precisions and a training step of each; the second only in a full run."""
    upstream = best_upstream()
    sections = [_section(scope, TIMESFORMER_BASE, upstream, f"Of {upstream.name}. {NOTES} {_SDPA}")]
    if not scope.quick:
        try:
            sections.append(_section(scope, TIMESFORMER_LUCIDRAINS, LUCIDRAINS, f"Of {LUCIDRAINS.name}. {NOTES}"))
        except NotSupportedError as error:
            sections.append(Section(f"Model {TIMESFORMER_LUCIDRAINS.name}", f"Skipped: {error}", [""], []))
    return sections


def _section(scope: Scope, shape: ModelShape, upstream: Upstream, notes: str) -> Section:
    return timing_section(f"Model {shape.name}", notes, model_cases(scope, shape, upstream), scope.model_effort)
