import io
import sys

import pytest

from vtfast.cli.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work(total: int) -> None:
    with Progress(total, "clip") as progress:
        progress.advance()
        progress.print("result")
        progress.reach(total)


def test_on_a_terminal_there_is_a_bar_and_results_stay_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tqdm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    work(4)
    assert "/4" in terminal.getvalue()
    assert capsys.readouterr().out == "result\n"


@pytest.mark.parametrize("total", [1, 4])
def test_no_bar_for_a_single_unit_or_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], total: int
) -> None:
    stream = Terminal() if total == 1 else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    work(total)
    assert stream.getvalue() == ""
    assert capsys.readouterr().out == "result\n"
