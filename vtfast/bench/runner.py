"""Measures many cases, in processes of their own, and hands out each record as it comes."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from vtfast.bench import allocator as allocators
from vtfast.bench.request import Request
from vtfast.bench.results import Record, Run, record_of


@dataclass(frozen=True)
class Failure:
    """A case without a record.

    Args:
        request: what was asked for.
        reason: why there is none.
        skipped: whether that is no fault: nothing here can do the case.
    """

    request: Request
    reason: str
    skipped: bool


def measure_all(requests: Sequence[Request], allocator: str, run: Run) -> Iterator[Record | Failure]:
    """Measures the cases, each subject in a fresh process; facts, ceilings and records also go to `run`.

    A process that dies takes its case along; another one carries on with the next.

    Args:
        requests: what to measure.
        allocator: "default" or "kept".
        run: takes facts and ceilings of the first process, and every record.
    """
    for _, group in groupby(requests, key=lambda request: request.subject):
        waiting = list(group)
        while waiting:
            done = 0
            for answer in _work(waiting, allocator, run):
                done += 1
                if isinstance(answer, Record):
                    run.records.append(answer)
                yield answer
            waiting = waiting[done:]


def _work(requests: Sequence[Request], allocator: str, run: Run) -> Iterator[Record | Failure]:
    """What one process comes to: an answer a request, as far as it gets."""
    order = {
        "allocator": allocator,
        "threads": max(request.threads for request in requests),
        "device": requests[0].device,
        "ceilings": not run.ceilings,
        "requests": [asdict(request) for request in requests],
    }
    command = [sys.executable, "-m", "vtfast.bench.worker", json.dumps(order)]
    env, number = allocators.environment(allocator), 0
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                answer = json.loads(line)
                if "facts" in answer:
                    _describe(run, answer)
                elif "record" in answer:
                    yield record_of(answer["record"])
                    number += 1
                elif "skipped" in answer:
                    yield Failure(requests[number], answer["because"], answer["skipped"])
                    number += 1
        finally:
            process.terminate()
    if number < len(requests):
        yield Failure(requests[number], f"the process ended with status {process.returncode}", skipped=False)


def _describe(run: Run, answer: dict[str, Any]) -> None:
    run.facts = run.facts or answer["facts"]
    run.ceilings = run.ceilings or answer["ceilings"]
