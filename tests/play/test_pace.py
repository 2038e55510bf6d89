"""The pace of a window: real time where the machine can, and what is said where it cannot."""

import pytest

from worldmodels.play.pace import Pace


def run(rate: float, step_seconds: float, draw_seconds: float, steps: int) -> tuple[Pace, int, float]:
    """A window whose steps and drawings take so long; the pace, the number of drawings and the seconds in all."""
    now, drawn = [0.0], 0
    pace = Pace(rate, lambda: now[0])
    for _ in range(steps):
        now[0] += step_seconds
        pace.step()
        if pace.draws():
            drawn += 1
            now[0] += draw_seconds
        now[0] += max(0.0, pace.left())
    return pace, drawn, now[0]


def test_a_machine_that_is_fast_enough_draws_every_step_in_real_time_and_nothing_is_said() -> None:
    pace, drawn, seconds = run(50, 0.010, 0.008, 200)
    assert drawn == 200 and seconds == pytest.approx(4.0, rel=0.01) and pace.note == ""


def test_a_machine_that_is_too_slow_to_draw_every_step_draws_fewer_and_keeps_real_time() -> None:
    pace, drawn, seconds = run(50, 0.014, 0.010, 500)
    assert seconds == pytest.approx(10.0, rel=0.02) and 250 <= drawn < 500 and pace.note == ""


def test_a_machine_that_cannot_keep_real_time_says_its_speed() -> None:
    pace, drawn, seconds = run(50, 0.022, 0.008, 500)
    reached = 500 / seconds
    assert drawn == pytest.approx(250, abs=30), "it draws every other step at least"
    assert pace.note == f"{reached:.0f} of 50 frames/s: {reached / 50:.2f} x real time"


def test_after_a_stall_the_world_goes_on_instead_of_hurrying() -> None:
    now = [0.0]
    pace = Pace(50, lambda: now[0])
    now[0] = 30.0
    pace.step()
    assert pace.left() == 0.0
    now[0] += 0.001
    pace.step()
    assert pace.left() == pytest.approx(0.019)
