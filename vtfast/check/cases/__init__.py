"""Which problems of each operation are checked: a few that tell much, and any number drawn from a seed."""

from vtfast.check.cases import convolution, divided, grid, pooling, rotary
from vtfast.check.cases.subject import Subject

SUBJECTS: dict[str, Subject] = {
    subject.name: subject for module in (grid, divided, rotary, pooling, convolution) for subject in module.SUBJECTS
}

__all__ = ["SUBJECTS", "Subject"]
