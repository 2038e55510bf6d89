"""How progress is shown to people."""

import io
import sys
from collections.abc import Iterator

import pytest

from worldmodels.core import progress
from worldmodels.core.progress import Progress
from worldmodels.core.terminal import duration


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    with monkeypatch.context() as patch:
        yield Clock(patch)


def test_without_a_terminal_there_are_plain_lines_with_rate_and_time_left(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(10_000, "vision", "frames") as bar:
        for _ in range(40):
            clock.now += 1
            bar.advance(50, loss=123.456)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "vision: 800/10,000 frames, 50/s, 3m04s left, loss 123.5",
        "vision: 1,600/10,000 frames, 50/s, 2m48s left, loss 123.5",
        "vision: 2,000 frames in 40s, loss 123.5",
    ]
    assert "\x1b" not in "".join(lines)


def test_what_an_earlier_process_did_is_said_and_does_not_count_for_the_rate(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(100, "controller", "generations", done=40) as bar:
        clock.now += 20
        bar.advance(10)
        assert bar.rate == pytest.approx(0.5)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "controller: continuing at 40 of 100 generations"
    assert lines[1] == "controller: 50/100 generations, 0.50/s, 1m40s left"


def test_work_that_fails_is_not_called_finished(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), Progress(10, "vision", "frames") as bar:
        bar.advance(5)
        raise KeyboardInterrupt
    assert capsys.readouterr().err == ""


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with Progress(10, "vision", "frames") as bar:
        bar.advance(10, loss=2.0)
    shown = screen.getvalue()
    assert "vision" in shown and "10/10 frames" in shown and "loss 2" in shown


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0s"), (59.6, "1m00s"), (190, "3m10s"), (3900, "1h05m")])
def test_durations_read_like_speech(seconds: float, text: str) -> None:
    assert duration(seconds) == text
