"""The dream beside the real world: what both start with and get, and the films of it."""

from contextlib import closing
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch

from dream_agents import dreamer, driven
from worldmodels.core.errors import UserError
from worldmodels.dream.env import DreamEnv
from worldmodels.dream.side_by_side import SideBySide
from worldmodels.render import dream_video
from worldmodels.render.dream_video import record_dream
from worldmodels.render.moment import Moment
from worldmodels.render.stock import stock_env
from worldmodels.tasks import Task
from worldmodels.tasks.base import playing_of


def test_a_dream_beside_the_real_world_starts_with_its_frame_and_gets_its_actions() -> None:
    agent = dreamer(end_bias=-20.0)
    with closing(stock_env(agent.task)) as env, closing(stock_env(agent.task)) as again:
        both = SideBySide(agent, env)
        both.reset(4)
        first = driven(agent, again, 4)
        torch.testing.assert_close(both.dreams.z, agent.encode(agent.task.frames(first[None]))[0])
        assert (both.dreams.h != 0).any(), "M remembers how the car came there"
        total = 0.0
        for _ in range(5):
            action = both.agent_action()
            assert action.shape == (3,)
            total += float(again.step(action)[1])
            both.step(action)
        assert both.real_score == pytest.approx(total) and both.step_number == 5 and not both.over
        picture = both.real_picture()
        assert picture is not None and picture.shape[2] == 3 and both.dream_frame().shape == (64, 64, 3)


def test_a_dream_alone_starts_from_a_recorded_frame_and_ends_by_itself() -> None:
    agent = dreamer(end_bias=20.0)
    both = SideBySide(agent, None)
    both.reset(4)
    assert both.real_picture() is None and not both.over
    both.step(both.agent_action())
    assert both.over and both.step_number == 1


@pytest.mark.parametrize(("name", "held"), [("dream.mp4", 9), ("dream.gif", 3)])
def test_a_dream_is_recorded_beside_the_real_world(tmp_path: Path, name: str, held: int) -> None:
    result = record_dream(dreamer(end_bias=-20.0), tmp_path / name, 1, steps=8)
    assert result["steps"] == 8 and result["real_score"] is not None
    frames = imageio.mimread(tmp_path / name, memtest=False)
    assert len(frames) >= held and frames[0].shape[1] > (2 * 480 if name.endswith("mp4") else 480)


def test_a_dream_is_recorded_alone_where_the_real_world_cannot_be_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(task: Task) -> None:
        raise UserError("no Box2D here")

    monkeypatch.setattr(dream_video, "stock_env", missing)
    result = record_dream(dreamer(end_bias=-20.0), tmp_path / "dream.gif", 1, steps=8)
    assert result["steps"] == 8 and result["real_score"] is None
    assert np.asarray(imageio.mimread(tmp_path / "dream.gif")[0]).shape[1] < 480
    assert "the dream alone: no Box2D here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("dream.png", {}, r"ends in \.mp4 or \.gif"),
        ("dream.gif", {"steps": 0}, "at least 1"),
        ("dream.gif", {"every": 0}, "at least 1"),
        ("none/dream.gif", {}, "does not exist"),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_any_work(
    tmp_path: Path, name: str, options: dict[str, int], text: str
) -> None:
    with pytest.raises(UserError, match=text):
        record_dream(dreamer(), tmp_path / name, 1, **options)
    assert not list(tmp_path.iterdir())


def test_a_film_of_a_dream_shows_the_step_the_action_and_that_both_get_the_same() -> None:
    frame = np.zeros((64, 64, 3), np.uint8)
    playing = playing_of(dreamer().task)

    def drawn(step: int, steer: float, alone: bool = False) -> np.ndarray:
        action = np.array([steer, 0.0, 0.0], np.float32)
        return dream_video._Pair(playing, alone).draw(Moment(step, 0.0, frame, frame, None, action))

    def differs(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        found: np.ndarray = (one != other).any(axis=(1, 2))
        return found

    below = 64 + 360
    steps, actions = differs(drawn(1, 0.5), drawn(2, 0.5)), differs(drawn(1, 0.5), drawn(1, -0.5))
    assert steps[below : below + 36].any() and actions[below + 36 :].any()
    assert not (steps & actions).any(), "each has its own row"
    assert (drawn(1, 0.5)[:64, 700:] != drawn(1, 0.5)[0, 0]).any(), "the note beside the title of the second half"
    assert drawn(1, 0.5, alone=True).shape[1] == 480 + 2 * 24


def test_a_real_world_that_goes_black_at_its_end_keeps_its_last_living_picture() -> None:
    agent = dreamer(end_bias=-20.0)
    with closing(stock_env(agent.task)) as env:
        both = SideBySide(agent, env)
        both.reset(4)
        living = np.array(both.real_picture())
        both.real_over = True
        env.render = lambda: np.zeros_like(living)  # type: ignore[method-assign]
        np.testing.assert_array_equal(both.real_picture(), living)


@pytest.mark.parametrize(("task", "rate"), [("car-racing", 50), ("take-cover", 35)])
def test_a_dream_says_the_frame_rate_of_its_world(task: str, rate: int) -> None:
    dream = DreamEnv(agent=dreamer(task), render_mode="rgb_array")
    assert dream.metadata["render_fps"] == rate and DreamEnv.metadata["render_fps"] == 50
