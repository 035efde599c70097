"""What can be measured: an operation or a model, its sizes, and the ways that PyTorch users have of doing it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vtfast.bench.measure import Case, is_compiled
from vtfast.bench.results import JUDGED

OP, MODEL = "op", "model"

FORWARD, BOTH = "forward", "forward + backward"
MODES = (FORWARD, BOTH)

AUTOCAST = "autocast bfloat16"

MakeCase = Callable[[Any, str, str, Sequence[str], str], Case]


@dataclass(frozen=True)
class Subject:
    """One operation or model.

    Args:
        name: of the operation in `vtfast.ops`, or of the model.
        kind: `OP` or `MODEL`.
        sizes: by their names for people, those of real models; the first is the most telling.
        quick: how many of them a quick run takes.
        peers: ways besides vtfast's on a CPU; those that compile have "compile" or "Flex" in their names.
        cuda_peers: the same on a GPU.
        make_case: of size, dtype ("float32", "autocast bfloat16"...), mode, names of ways, device, the case.
        small: a size that warms a process up.
        works: dtype and mode of every row by rule.
        sums: dtype of the GEMM whose units the work sums with, where that is not its own.
    """

    name: str
    kind: str
    sizes: Mapping[str, Any]
    quick: int
    peers: tuple[str, ...]
    cuda_peers: tuple[str, ...]
    make_case: MakeCase
    small: Any
    works: Sequence[tuple[str, str]] = tuple((dtype, mode) for mode in MODES for dtype in ("float32", "bfloat16"))
    sums: str | None = None

    def ways(self, device: str, names: Sequence[str] | None = None, compiled: bool = True) -> list[str]:
        """The names of the ways to be measured, vtfast's last.

        Args:
            device: "cpu" or "cuda".
            names: only these peers; all if None, but for vtfast's own model compiled.
            compiled: whether the peers that compile take part; those that `names` asks for do.
        """
        peers = self.peers if device == "cpu" else self.cuda_peers
        if names is None:
            others = [peer for peer in peers if not peer.startswith(JUDGED)]
            chosen = [peer for peer in others if compiled or not is_compiled(peer)]
        else:
            chosen = [peer for peer in peers if peer in names]
        return [*chosen, JUDGED]


def dtype_of(name: str) -> torch.dtype:
    """The dtype by its name in results; of autocast that of the products."""
    dtype: torch.dtype = getattr(torch, name.removeprefix("autocast "))
    return dtype
