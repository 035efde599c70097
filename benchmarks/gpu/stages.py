"""Stages of a long run: each a process with a time limit and a log, none able to stop the others."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SKIPPED_STATUS = 77  # what a stage that has nothing to do exits with; its last line says why

_GRACE = 5.0  # seconds between asking a process to end and ending it


@dataclass(frozen=True)
class Stage:
    """One process of the run.

    Args:
        name: in the summary, and of the log.
        command: with `{seconds}` where it wants to know how long it may take.
        limit: seconds that it is sure to have.
        elastic: whether it also gets what the stages before it left over.
        needs: stages that have to be ok for this one to make sense.
    """

    name: str
    command: Sequence[str]
    limit: float
    elastic: bool = False
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of a stage.

    Args:
        stage: its name.
        status: "ok", "failed", "timed out" or "skipped".
        seconds: that it took.
        note: why, unless ok.
    """

    stage: str
    status: str
    seconds: float
    note: str = ""


def run_stages(
    plan: Sequence[Sequence[Stage]], logs: Path, started: Callable[[Stage], object] = lambda stage: None
) -> Iterator[Outcome]:
    """Runs the groups of `plan` one after the other, the stages of a group side by side.

    Args:
        plan: the groups.
        logs: folder for `<stage>.log`.
        started: called with each stage that starts.
    """
    begin, planned = time.monotonic(), 0.0
    ended: dict[str, Outcome] = {}
    for group in plan:
        left_over = max(0.0, planned - (time.monotonic() - begin))
        planned += max(stage.limit for stage in group)
        running: list[_Running] = []
        try:
            for stage in group:
                missing = [name for name in stage.needs if name in ended and ended[name].status != "ok"]
                if missing:
                    ended[stage.name] = Outcome(stage.name, "skipped", 0.0, f"{missing[0]} is not ok")
                    yield ended[stage.name]
                    continue
                started(stage)
                running.append(_Running(stage, stage.limit + left_over * stage.elastic, logs / f"{stage.name}.log"))
            while running:
                for process in list(running):
                    outcome = process.outcome()
                    if outcome is not None:
                        running.remove(process)
                        ended[outcome.stage] = outcome
                        yield outcome
                time.sleep(0.05)
        finally:
            for process in running:
                process.end()


class _Running:
    """A stage's process and everything that it starts."""

    def __init__(self, stage: Stage, limit: float, log: Path) -> None:
        self.stage, self.limit, self.log = stage, limit, log
        self.begin = time.monotonic()
        command = [part.replace("{seconds}", f"{limit:.0f}") for part in stage.command]
        with log.open("wb") as output:
            try:
                self.process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
                )
            except OSError as error:
                output.write(f"{error}\n".encode())
                self.process = subprocess.Popen(["false"], start_new_session=True)

    def outcome(self) -> Outcome | None:
        """None while it runs within its limit."""
        seconds, status = time.monotonic() - self.begin, self.process.poll()
        if status is None and seconds < self.limit:
            return None
        self.end()
        if status is None:
            return Outcome(self.stage.name, "timed out", seconds, f"after {self.limit:.0f} s; {self._last_line()}")
        if status == 0:
            return Outcome(self.stage.name, "ok", seconds)
        if status == SKIPPED_STATUS:
            return Outcome(self.stage.name, "skipped", seconds, self._last_line())
        return Outcome(self.stage.name, "failed", seconds, f"status {status}; {self._last_line()}")

    def end(self) -> None:
        """Ends the process and its children; those of an ended process too."""
        end_group(self.process)

    def _last_line(self) -> str:
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][:200] if lines else "no output"


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """Ends every process of the group that `process`, started in a session of its own, leads."""
    _signal(process.pid, signal.SIGTERM if process.poll() is None else signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
    _signal(process.pid, signal.SIGKILL)
    process.wait()


def _signal(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)
