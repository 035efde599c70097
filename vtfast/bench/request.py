"""What a process that measures is asked for."""

from dataclasses import dataclass, replace

from vtfast.bench.measure import Case, Effort
from vtfast.bench.results import Record
from vtfast.bench.shape_text import parse_shape, text_of
from vtfast.bench.subjects import subject_named

EFFORTS = {
    ("op", False): Effort(seconds=4.0, max_rounds=25),
    ("op", True): Effort(seconds=1.5, max_rounds=9),
    ("model", False): Effort(seconds=20.0, max_rounds=11),
    ("model", True): Effort(seconds=6.0, max_rounds=7, min_rounds=3),
}


@dataclass(frozen=True)
class Request:
    """One case.

    Args:
        subject: the operation or the model.
        name: of the size, for people.
        shape: the size, as `--shape` takes it.
        dtype: as in `Record`; likewise mode, device, threads, sweep and at.
        ways: what to measure, "vtfast" among them.
        quick: whether fewer rounds do.
        memory: whether memory at the peak is measured too, each way in a process of its own.
    """

    subject: str
    name: str
    shape: str
    dtype: str
    mode: str
    ways: tuple[str, ...]
    device: str = "cpu"
    threads: int = 1
    quick: bool = False
    memory: bool = False
    sweep: str | None = None
    at: float | None = None

    @property
    def effort(self) -> Effort:
        """How long to measure."""
        return EFFORTS[subject_named(self.subject).kind, self.quick]

    def case(self) -> Case:
        """What is to be measured."""
        subject = subject_named(self.subject)
        shape = parse_shape(self.shape, next(iter(subject.sizes.values())))
        return subject.make_case(shape, self.dtype, self.mode, self.ways, self.device)

    def of_small(self) -> "Request":
        """The same at a size that warms a process up."""
        return replace(self, shape=text_of(subject_named(self.subject).small))

    def record(self) -> Record:
        """The record, without results."""
        subject = subject_named(self.subject)
        return Record(
            subject=self.subject,
            kind=subject.kind,
            name=self.name,
            shape=self.shape,
            dtype=self.dtype,
            mode=self.mode,
            device=self.device,
            threads=self.threads,
            sweep=self.sweep,
            at=self.at,
            sums=subject.sums,
        )
