"""What a run of the benchmarks covers."""

from dataclasses import dataclass

from benchmarks.measure import Effort


@dataclass(frozen=True)
class Scope:
    """Given to every suite.

    Args:
        quick: the few rows that matter most, without `torch.compile`, in fewer rounds.
        threads: threads of the process.
        compile: whether the peers that compile take part.
    """

    quick: bool
    threads: int
    compile: bool = True

    @property
    def core_effort(self) -> Effort:
        return Effort(seconds=1.5, max_rounds=9) if self.quick else Effort(seconds=4.0, max_rounds=25)

    @property
    def model_effort(self) -> Effort:
        return Effort(seconds=6.0, max_rounds=7, min_rounds=3) if self.quick else Effort(seconds=20.0, max_rounds=11)
