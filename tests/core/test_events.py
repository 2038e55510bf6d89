"""What happens during work is told to whoever listens, and to the terminal if nobody does."""

from pathlib import Path

import pytest

from worldmodels.core.events import Advanced, Ended, Event, Measured, Message, Started, emit, listening, say
from worldmodels.core.metrics import MetricsLog
from worldmodels.core.progress import Progress
from worldmodels.core.terminal import terminal


def work(directory: Path) -> None:
    """Two steps, each with a number."""
    log = MetricsLog(directory / "vision", ("loss",))
    with Progress(20, "vision", "frames") as bar:
        for step in (1, 2):
            bar.advance(10, loss=1 / step)
            log.log(step, loss=1 / step)
    log.close()
    say("that was all")


def test_a_listener_is_told_everything_in_order_and_the_terminal_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = list[Event]()
    with listening(heard.append):
        work(tmp_path)
    kinds = [type(event) for event in heard]
    assert kinds == [Started, Advanced, Measured, Advanced, Measured, Ended, Message]
    assert heard[0] == Started("vision", 20, "frames", 0)
    advanced = [event for event in heard if isinstance(event, Advanced)]
    assert [(event.what, event.done, event.total, event.unit) for event in advanced] == [
        ("vision", 10, 20, "frames"),
        ("vision", 20, 20, "frames"),
    ]
    assert [dict(event.numbers) for event in advanced] == [{"loss": 1.0}, {"loss": 0.5}]
    assert advanced[0].rate > 0 and advanced[1].seconds_left == 0
    assert [event for event in heard if isinstance(event, Measured)] == [
        Measured("vision", 1, {"loss": 1.0}),
        Measured("vision", 2, {"loss": 0.5}),
    ]
    ended = heard[-2]
    assert isinstance(ended, Ended) and ended.completed and ended.done == 20 and ended.numbers == {"loss": 0.5}
    assert heard[-1] == Message("that was all")
    assert capsys.readouterr().err == ""


def test_without_a_listener_the_terminal_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work(tmp_path)
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["vision: 20 frames in 0s, loss 0.5", "that was all"] and captured.out == ""


def test_the_terminal_may_listen_beside_others(capsys: pytest.CaptureFixture[str]) -> None:
    heard = list[Event]()
    with listening(terminal, heard.append):
        say("hello")
    assert heard == [Message("hello")] and capsys.readouterr().err == "hello\n"


def test_listeners_are_forgotten_when_their_block_ends_even_by_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    outer, inner = list[Event](), list[Event]()
    with listening(outer.append):
        with pytest.raises(RuntimeError), listening(inner.append):
            say("to both")
            raise RuntimeError
        say("to the outer one")
    say("to nobody")
    assert [event.text for event in outer if isinstance(event, Message)] == ["to both", "to the outer one"]
    assert [event.text for event in inner if isinstance(event, Message)] == ["to both"]
    assert capsys.readouterr().err == "to nobody\n"


def test_one_function_may_listen_twice_and_stop_once() -> None:
    heard = list[Event]()
    listener = heard.append
    with listening(listener):
        with listening(listener):
            emit(Message("twice"))
        emit(Message("once"))
    assert heard == [Message("twice"), Message("twice"), Message("once")]


def test_work_that_fails_ends_incomplete() -> None:
    heard = list[Event]()
    with listening(heard.append), pytest.raises(ZeroDivisionError), Progress(10, "memory", "frames", done=4) as bar:
        bar.advance(1)
        raise ZeroDivisionError
    assert heard[0] == Started("memory", 10, "frames", 4)
    ended = heard[-1]
    assert isinstance(ended, Ended) and not ended.completed and ended.done == 5
