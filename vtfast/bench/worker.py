"""Cases one after the other in this process: `python -m vtfast.bench.worker REQUEST`, which answers in JSON lines.

The first line holds facts, and ceilings where they are asked for; then comes a line a case, with its record or why
there is none. Malloc reads its settings when a process starts, and what a peer compiled or left behind ends with it: so
the parent starts one for each subject and allocator.
"""

import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any, TextIO

import torch

from vtfast import use_backend
from vtfast.bench import ceilings, environment
from vtfast.bench.allocator import fault_in_heap
from vtfast.bench.cuda_meter import meter_for
from vtfast.bench.measure import NotSupportedError, Result, Way, is_compiled, run_case
from vtfast.bench.memory import peak_of
from vtfast.bench.request import Request
from vtfast.bench.results import JUDGED, Record
from vtfast.bench.subjects import subject_named
from vtfast.bench.subjects.subject import OP
from vtfast.plan import Cost, count


def main(order: dict[str, Any], answers: TextIO) -> None:
    """Carries out an order.

    Args:
        order: `allocator`, `threads`, `device`, `ceilings` (whether to measure them) and `requests`.
        answers: takes the lines.
    """

    def answer(**fields: Any) -> None:
        answers.write(json.dumps(fields) + "\n")
        answers.flush()

    torch.set_num_threads(order["threads"])
    if order["allocator"] == "kept":
        fault_in_heap()
    facts = environment.facts(order["allocator"], order["device"])
    requests = [Request(**{**fields, "ways": tuple(fields["ways"])}) for fields in order["requests"]]
    answer(facts=facts, ceilings=_ceilings(requests[0]) if order["ceilings"] else {})
    for request in requests:
        try:
            answer(record=asdict(measure(request)))
        except NotSupportedError as error:
            answer(skipped=True, because=str(error))
        except Exception as error:
            traceback.print_exc()
            answer(skipped=False, because=reason(error))


def _ceilings(request: Request) -> dict[str, float]:
    return ceilings.rates(request.device, ceilings.QUICK if request.quick else ceilings.THOROUGH)


def measure(request: Request) -> Record:
    """One case.

    Raises:
        NotSupportedError: nothing can be measured; the message says why.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(request.threads)
    try:
        return _measure(request)
    finally:
        torch.set_num_threads(threads)


def _measure(request: Request) -> Record:
    case, costs = request.case(), list[Cost]()

    def look_at(way: Way) -> None:
        if way.name == JUDGED:
            costs.append(count(way.run))

    # Launching costs nobody anything where single operations are compared.
    head_start = 2e-3 if subject_named(request.subject).kind == OP else 0.0
    guarded = replace(case, ways=lambda: [_guarded(way) for way in case.ways()])
    results = run_case(guarded, request.effort, meter_for(request.device, head_start), look_at)
    if request.memory:
        results = [_with_memory(result, request) for result in results]
    flops, exps = (costs[0].flops, costs[0].exps) if costs else (None, None)
    return replace(
        request.record(),
        flops=case.flops or flops,
        exps=exps,
        fewest_bytes=case.fewest_bytes,
        results=tuple(results),
    )


def _with_memory(result: Result, request: Request) -> Result:
    """Of ways that were compared, but for those that compile, whose compiler would count too."""
    if result.timing is None or result.agrees is None or is_compiled(result.way):
        return result
    return replace(result, peak_bytes=peak_of(request, result.way))


def _guarded(way: Way) -> Way:
    """Whatever the first run raises says that the way cannot do the case; vtfast's way is never the reference."""
    runs = _runs(way)
    return replace(way, run=lambda: next(runs)())


def _runs(way: Way) -> Iterator[Callable[[], Any]]:
    def natively() -> Any:
        with use_backend("native"):
            return way.run()

    run = natively if way.name == JUDGED else way.run

    def first() -> Any:
        try:
            return run()
        except NotSupportedError:
            raise
        except Exception as error:
            raise NotSupportedError(reason(error)) from error

    yield first
    while True:
        yield run


def reason(error: Exception) -> str:
    """One line of why a way cannot do a case."""
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"refused: {lines[0]}"[:240]


if __name__ == "__main__":
    # Peers print what they like; answers keep a channel of their own.
    _answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    warnings.simplefilter("ignore")
    main(json.loads(sys.argv[1]), _answers)
