"""The training loop, its log and its progress."""

import csv
import io
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from worldmodels import interrupt, progress
from worldmodels.errors import UserError
from worldmodels.progress import Progress, duration
from worldmodels.storage.metrics import MetricsLog
from worldmodels.training import Loss, Schedule, fit

CHECKPOINT = "checkpoint.safetensors"


def line_fit(directory: Path, steps: int = 60, poison: int | None = None, stop_at: int | None = None) -> nn.Module:
    """Fit y = 2 x - 1; ``poison``: a step whose loss is NaN; ``stop_at``: a step during which a signal comes."""
    torch.manual_seed(0)
    module = nn.Linear(1, 1)

    def batches(step: int) -> Iterator[Tensor]:
        while True:
            yield torch.randn(16, 1, generator=torch.Generator().manual_seed(step))
            step += 1

    def loss(x: Tensor, step: int) -> Loss:
        if step == stop_at:
            interrupt._received = 15
        error = (module(x) - (2 * x - 1)).square().mean()
        return error * (math.nan if step == poison else 1.0), {"error": error.detach()}

    schedule = Schedule(steps, lr=0.2, final_fraction=0.1, clip=1.0)
    try:
        fit("line", module, batches, loss, schedule, directory, ("error",), 16)
    finally:
        interrupt._received = None
    return module


def rows(directory: Path) -> list[dict[str, str]]:
    with open(directory / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_it_trains_and_logs_every_twenty_steps(tmp_path: Path) -> None:
    module = line_fit(tmp_path, steps=130)
    assert module.weight.item() == pytest.approx(2, abs=0.05) and module.bias.item() == pytest.approx(-1, abs=0.05)
    logged = rows(tmp_path)
    assert [row["step"] for row in logged] == ["20", "40", "60", "80", "100", "120", "130"]
    assert set(logged[0]) == {"step", "error", "loss", "lr", "line_per_s"}
    assert float(logged[-1]["loss"]) < 0.01 < float(logged[0]["loss"])
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_signal_saves_the_finished_step_and_the_same_call_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    wanted = line_fit(tmp_path / "whole")
    with pytest.raises(interrupt.Interrupted) as stop:
        line_fit(tmp_path / "cut", stop_at=33)
    assert stop.value.exit_code == 143 and (tmp_path / "cut" / CHECKPOINT).exists()
    found = line_fit(tmp_path / "cut")
    for mine, theirs in zip(found.parameters(), wanted.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    without_speed = [
        [{name: cell for name, cell in row.items() if name != "line_per_s"} for row in rows(tmp_path / name)]
        for name in ("whole", "cut")
    ]
    assert without_speed[0] == without_speed[1]


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(tmp_path: Path) -> None:
    with pytest.raises(interrupt.Interrupted):
        line_fit(tmp_path, stop_at=9)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(UserError, match=r"line: the loss became nan at step 11;.*lower --line.lr"):
        line_fit(tmp_path, poison=11)
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    again, wanted = line_fit(tmp_path), line_fit(tmp_path / "undisturbed")
    assert torch.equal(again.weight, wanted.weight)


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(interrupt.Interrupted):
        line_fit(tmp_path, stop_at=3)
    module = nn.Linear(2, 2)
    with pytest.raises(UserError, match="does not belong to this stage"):
        fit("other", module, lambda _: iter(()), lambda *_: None, Schedule(5, 0.1, 0.1), tmp_path, (), 1)  # type: ignore[arg-type, return-value]


def test_the_learning_rate_warms_up_and_falls_along_a_cosine() -> None:
    schedule = Schedule(steps=1000, lr=0.1, final_fraction=0.01, warmup=20)
    rates = [schedule.rate(step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.1 / 20, rel=1e-3) and max(rates) == pytest.approx(0.1, rel=0.01)
    assert rates.index(max(rates)) == 19 and rates[19:] == sorted(rates[19:], reverse=True)
    assert rates[500] == pytest.approx(0.1 * (0.01 + 0.99 / 2), rel=1e-6)
    assert rates[-1] == pytest.approx(0.001, rel=0.01)


# --- the log -------------------------------------------------------------------------------------------------


def test_rows_after_the_step_of_a_resume_are_dropped(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, ("loss", "extra"))
    for step in (10, 20, 30):
        log.log(step, loss=1 / step, extra=step)
    log.close()
    log = MetricsLog(tmp_path, ("loss", "extra"), resume_step=20)
    assert [row["step"] for row in rows(tmp_path)] == ["10", "20"]
    log.log(30, loss=0.5)
    log.close()
    assert [(row["step"], row["loss"], row["extra"]) for row in rows(tmp_path)] == [
        ("10", repr(0.1), "10.0"), ("20", repr(0.05), "20.0"), ("30", "0.5", ""),
    ]  # fmt: skip


def test_numbers_keep_all_their_digits(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, ("loss",))
    log.log(1, loss=1 / 3)
    log.close()
    assert float(rows(tmp_path)[0]["loss"]) == 1 / 3


@pytest.mark.parametrize("torn", ["30", "30,0.2", "\x00\xff", "x,1,2", '"30,0.2'])
def test_a_torn_line_of_a_killed_process_is_no_row(tmp_path: Path, torn: str) -> None:
    log = MetricsLog(tmp_path, ("loss", "extra"))
    log.log(10, loss=0.1, extra=1)
    log.close()
    with open(tmp_path / "metrics.csv", "a", encoding="latin-1") as file:
        file.write(torn)
    log = MetricsLog(tmp_path, ("loss", "extra"), resume_step=50)
    log.log(40, loss=0.4, extra=4)
    log.close()
    assert [row["step"] for row in rows(tmp_path)] == ["10", "40"]


def test_a_log_with_other_columns_starts_anew(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, ("old",))
    log.log(10, old=1)
    log.close()
    MetricsLog(tmp_path, ("new",), resume_step=10).close()
    assert (tmp_path / "metrics.csv").read_text().split() == ["step,new"]


def test_tensorboard_reads_what_was_logged_and_forgets_what_was_dropped(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = MetricsLog(tmp_path, ("loss",))
    for step in (10, 20, 30):
        log.log(step, loss=step)
    log.close()
    log = MetricsLog(tmp_path, ("loss",), resume_step=20)
    log.log(30, loss=300)
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(one.step, one.value) for one in events.Scalars("loss")] == [(10, 10), (20, 20), (30, 300)]


# --- progress ------------------------------------------------------------------------------------------------


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
