"""The tests on a device, the basic ones first: `python -m benchmarks.gpu.correctness DEVICE OUTPUT [--quick]`."""

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]

_TESTS = ("test_library.py", "reference", "ops", "layers", "models")
_QUICK = ("test_library.py", "ops/test_bad_input.py")

# A worker has a context of its own on the device, some hundred megabytes, and two threads.
_WORKERS = 8
_TEST_LIMIT = 90
_KEPT = 200  # failures of which the report knows what was said


def main(device: str, output: Path, quick: bool) -> int:
    """Pytest's status, in shards where pytest-xdist is there."""
    output.unlink(missing_ok=True)
    chosen = [f"tests/{name}" for name in (_QUICK if quick else _TESTS)]
    command = [sys.executable, "-m", "pytest", *chosen, "--device", device, "-q", "-ra", "--tb=short"]
    command += ["--maxfail=0", "--continue-on-collection-errors"]
    command += ["-p", "benchmarks.gpu.verdicts", "--verdicts", str(output), f"--junit-xml={output.with_suffix('.xml')}"]
    if importlib.util.find_spec("xdist"):
        workers = 2 if quick else min(_WORKERS, os.cpu_count() or 1)
        command += ["-n", str(workers), "--maxschedchunk", "4", "--max-worker-restart", "200"]
    if importlib.util.find_spec("pytest_timeout"):
        command += ["--timeout", str(_TEST_LIMIT), "--timeout-method", "thread"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])}
    status = subprocess.run(command, cwd=_ROOT, env=env).returncode
    found = summary(output)
    print(f"{found['counts']} in all, pytest's status {status}")
    return status


def summary(output: Path) -> dict[str, Any]:
    """Counts of outcomes, and what was said of each failure."""
    lines = output.read_text().splitlines() if output.exists() else []
    verdicts: dict[str, dict[str, str]] = {}
    for verdict in map(json.loads, lines):
        # A test fails if any of its phases does, or if its worker died.
        if verdicts.get(verdict["test"], {}).get("outcome") != "failed":
            verdicts[verdict["test"]] = verdict
    failures = [verdict for verdict in verdicts.values() if verdict["outcome"] == "failed"]
    counts = Counter(verdict["outcome"] for verdict in verdicts.values())
    by_file = Counter(verdict["test"].split("::")[0] for verdict in failures)
    return {"counts": dict(counts), "failures": failures[:_KEPT], "failures_by_file": dict(by_file)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), "--quick" in sys.argv[3:]))
