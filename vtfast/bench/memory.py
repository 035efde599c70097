"""Peak memory of one way in a process of its own, so that nothing earlier hides what it needs.

`python -m vtfast.bench.memory REQUEST`, where the request is JSON with a single way.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace

import torch

from vtfast.bench.measure import NotSupportedError, Way
from vtfast.bench.peak_memory import peak_memory
from vtfast.bench.request import Request

# Every large block comes from the system and goes back to it. By default glibc stops that once it has seen one freed,
# and the peak would tell of what was made and dropped before the work.
_RETURN_PAGES = {"MALLOC_MMAP_THRESHOLD_": str(1 << 17), "MALLOC_TRIM_THRESHOLD_": str(1 << 17)}


def peak_of(request: Request, way: str) -> int:
    """Bytes at the peak of one way beyond weights and inputs, results and gradients included.

    Raises:
        NotSupportedError: the way cannot do the case.
        RuntimeError: the system cannot tell (on a CPU only Linux can), or the process failed.
    """
    alone = json.dumps(asdict(replace(request, ways=(way,))))
    command = [sys.executable, "-m", "vtfast.bench.memory", alone]
    done = subprocess.run(command, env=os.environ | _RETURN_PAGES, capture_output=True, text=True)
    answer = done.stdout.splitlines()[-1:] or [""]
    if done.returncode or not answer[0].startswith("{"):
        raise RuntimeError(f"peak memory of {request.subject} by {way} could not be measured:\n{done.stderr[-2000:]}")
    found = json.loads(answer[0])
    if "not supported" in found:
        raise NotSupportedError(found["not supported"])
    return int(found["peak"])


def _measure(request: Request) -> int:
    torch.set_num_threads(request.threads)
    # Something small first: it loads libraries and starts threads, which are not the work's.
    _way(request.of_small()).run()
    way = _way(request)
    peak = peak_memory(way.run, torch.device(request.device))
    if peak is None:
        raise RuntimeError("the system does not tell the peak of resident memory")
    return peak


def _way(request: Request) -> Way:
    """The one that is asked for, without the tensors of the yardsticks."""
    return next(way for way in request.case().ways() if way.name == request.ways[0])


if __name__ == "__main__":
    _fields = json.loads(sys.argv[1])
    try:
        print(json.dumps({"peak": _measure(Request(**{**_fields, "ways": tuple(_fields["ways"])}))}))
    except NotSupportedError as error:
        print(json.dumps({"not supported": str(error)}))
