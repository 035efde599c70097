"""A compiler launcher for CMake: runs the command and keeps what it printed and took next to the object file."""

import json
import resource
import subprocess
import sys
from pathlib import Path


def main(command: list[str]) -> int:
    """Runs `command`, which names its output by `-o`, and returns its exit status."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    sys.stderr.write(done.stdout)
    # Processor time: the time on the clock would be that of all that runs on the machine.
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    record = {"seconds": usage.ru_utime + usage.ru_stime, "output": done.stdout}
    Path(command[command.index("-o") + 1] + ".json").write_text(json.dumps(record))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
