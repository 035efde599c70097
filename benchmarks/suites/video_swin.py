"""swin3d_t as a whole: torchvision's against vtfast's with the same weights."""

from benchmarks.model_cases import NOTES, model_cases
from benchmarks.report import Section, timing_section
from benchmarks.scope import Scope
from benchmarks.shapes import SWIN3D_T
from benchmarks.upstream import TORCHVISION


def run(scope: Scope) -> list[Section]:
    """Inference in three precisions and a training step."""
    cases, notes = model_cases(scope, SWIN3D_T, TORCHVISION), f"Of {TORCHVISION.name}. {NOTES}"
    return [timing_section(f"Model {SWIN3D_T.name}", notes, cases, scope.model_effort)]
