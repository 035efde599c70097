"""One suite under one allocator, in this process: `python -m benchmarks.worker REQUEST OUTPUT`, both JSON."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks import environment
from benchmarks.allocator import fault_in_heap
from benchmarks.measure import NotSupportedError
from benchmarks.scope import Scope
from benchmarks.suites import load_suite


@dataclass(frozen=True)
class Request:
    """What to run.

    Args:
        suite: its name.
        allocator: the one that the environment of this process sets up.
        quick: as in `Scope`.
        compile: as in `Scope`.
        threads: as in `Scope`.
    """

    suite: str
    allocator: str
    quick: bool
    compile: bool
    threads: int


def run(request: Request) -> dict[str, object]:
    """The suite's sections and what they were taken on."""
    torch.set_num_threads(request.threads)
    scope = Scope(request.quick, request.threads, request.compile and not request.quick)
    if request.allocator == "kept":
        fault_in_heap()
    facts = environment.facts(request.allocator)
    try:
        sections = load_suite(request.suite).run(scope)
    except NotSupportedError as error:
        return {"facts": facts, "sections": [], "skipped": str(error)}
    return {"facts": facts, "sections": [asdict(section) for section in sections]}


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(run(Request(**json.loads(sys.argv[1])))))
