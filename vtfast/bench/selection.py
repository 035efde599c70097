"""From what a user asks for to the cases that are measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vtfast.bench.request import Request
from vtfast.bench.shape_text import parse_shape, text_of
from vtfast.bench.subjects.subject import Subject


@dataclass(frozen=True)
class Selection:
    """What to measure of each subject.

    Args:
        shapes: sizes as text; the named ones of a subject if there are none.
        dtypes: "float32", "autocast bfloat16"...; those of the subject if there are none.
        modes: "forward", "forward + backward"; those of the subject if there are none.
        peers: names of ways besides vtfast's; all that are there if None.
        compile: whether peers that compile take part. By rule they do at the first size of a subject.
        device: "cpu" or "cuda".
        threads: of the process.
        memory: whether memory at the peak is measured too.
        quick: fewer sizes and rounds, and nothing that compiles.
    """

    shapes: Sequence[str] = ()
    dtypes: Sequence[str] = ()
    modes: Sequence[str] = ()
    peers: Sequence[str] | None = None
    compile: bool = True
    device: str = "cpu"
    threads: int = 1
    memory: bool = False
    quick: bool = False

    def requests(self, subject: Subject) -> Iterator[Request]:
        """The cases of a subject.

        Raises:
            ValueError: it has no such size, dtype, mode or peer.
        """
        self._check_peers(subject)
        works = self._works(subject)
        for number, (name, shape) in enumerate(self._sizes(subject)):
            ways = subject.ways(self.device, self.peers, self.compile and not self.quick and number == 0)
            for dtype, mode in works:
                yield Request(
                    subject.name, name, text_of(shape), dtype, mode, tuple(ways), self.device, self.threads,
                    self.quick, self.memory,
                )  # fmt: skip

    def _sizes(self, subject: Subject) -> list[tuple[str, Any]]:
        named = list(subject.sizes.items())
        if not self.shapes:
            return named[: subject.quick] if self.quick else named
        parsed = (parse_shape(text, named[0][1]) for text in self.shapes)
        names = {text_of(shape): name for name, shape in named}
        return [(names.get(text_of(shape), text_of(shape)), shape) for shape in parsed]

    def _works(self, subject: Subject) -> list[tuple[str, str]]:
        """Dtype and mode; together what is asked for of either."""
        if not self.dtypes and not self.modes:
            return list(subject.works)
        dtypes = self.dtypes or list(dict.fromkeys(dtype for dtype, _ in subject.works))
        modes = self.modes or list(dict.fromkeys(mode for _, mode in subject.works))
        return [(dtype, mode) for mode in modes for dtype in dtypes]

    def _check_peers(self, subject: Subject) -> None:
        known = subject.ways(self.device)
        if self.peers and not set(self.peers) & set(known):
            raise ValueError(f"--peers of {subject.name} must be among {', '.join(known[:-1])}, got {self.peers[0]!r}")
