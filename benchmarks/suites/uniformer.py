"""uniformer_s and uniformer_v2_b16 as a whole: mmaction2's against vtfast's with the same weights."""

from benchmarks.model_cases import NOTES, TRAINING, model_cases
from benchmarks.report import Section, timing_section
from benchmarks.scope import Scope
from benchmarks.shapes import UNIFORMER_S, UNIFORMER_V2_B16
from benchmarks.uniformer_peers import UNIFORMER
from benchmarks.uniformer_v2_upstream import MMACTION2_UNIFORMER_V2

QUICK = False

_LAYOUT = (
    "channels_last_3d is the same model with weights in that layout, and without the copies to the other one behind "
    "its patch embeddings. In the training step the batch normalisation before the head keeps to its running "
    "statistics: with those of a single clip the logits would be the same for any clip"
)


def run(scope: Scope) -> list[Section]:
    """Inference of both in three precisions, and a training step of the first."""
    uniformer = model_cases(scope, UNIFORMER_S, UNIFORMER)
    second = (case for case in model_cases(scope, UNIFORMER_V2_B16, MMACTION2_UNIFORMER_V2) if case.name != TRAINING)
    return [
        timing_section(
            f"Model {UNIFORMER_S.name}", f"Of {UNIFORMER.name}. {NOTES} {_LAYOUT}.", uniformer, scope.model_effort
        ),
        timing_section(
            f"Model {UNIFORMER_V2_B16.name}", f"Of {MMACTION2_UNIFORMER_V2.name}. {NOTES}", second, scope.model_effort
        ),
    ]
