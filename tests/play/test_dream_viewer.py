"""Playing in the dream, with the real world beside it, without a window."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from dream_agents import dreamer, driven
from worldmodels.agent import load_agent
from worldmodels.core.errors import UserError
from worldmodels.core.seeds import episode_seeds
from worldmodels.play import dream as dream_module
from worldmodels.play.dream import DreamViewer
from worldmodels.render.stock import stock_env
from worldmodels.tasks import Task, get_task
from worldmodels.tasks.base import playing_of
from worldmodels.tasks.car_racing.task import CarRacing

CAR = get_task("car-racing")


@pytest.fixture
def saved(tmp_path: Path) -> str:
    dreamer(end_bias=-20.0).save(tmp_path)
    return str(tmp_path)


@pytest.fixture
def viewer(saved: str) -> Iterator[DreamViewer]:
    with closing(DreamViewer(CAR, 1, saved)) as made:
        yield made


def test_the_keys_act_in_the_dream_and_in_the_real_world(viewer: DreamViewer, saved: str) -> None:
    viewer.press("up")
    scores = [0.0]
    for _ in range(8):
        viewer.advance()
        scores.append(viewer.side_by_side.real_score)
    assert viewer.side_by_side.step_number == 8 and viewer.side_by_side.dream_score != 0
    env = stock_env(CAR)
    driven(load_agent(saved), env, episode_seeds("play", 1, 1, 0)[0])
    wanted = [0.0]
    for _ in range(8):
        wanted.append(wanted[-1] + float(env.step(playing_of(CAR).key_action(frozenset({"up"})))[1]))
    env.close()
    assert scores == pytest.approx(wanted)


def test_plus_and_minus_change_the_temperature_and_a_lets_the_agent_act(viewer: DreamViewer) -> None:
    seen = [(viewer.temperature, viewer.player)]
    for key in ("plus", "minus", "minus", "space"):
        viewer.press(key)
        viewer.advance()
        seen.append((viewer.temperature, viewer.player))
    assert [one for one, _ in seen] == pytest.approx([1.0, 1.15, 1.0, 1 / 1.15, 1 / 1.15])
    assert [player for _, player in seen] == ["you"] * 4 + ["agent"]
    for key, limit in (("plus", 4.0), ("minus", 0.05)):
        for _ in range(60):
            viewer.press(key)
        assert viewer.temperature == pytest.approx(limit)


def test_the_agent_acts_by_what_it_sees_in_the_dream(viewer: DreamViewer, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[np.ndarray] = []
    step = viewer.side_by_side.step
    monkeypatch.setattr(viewer.side_by_side, "step", lambda action: (done.append(action), step(action)))
    viewer.press("space")
    wanted = viewer.side_by_side.agent_action()
    viewer.advance()
    np.testing.assert_array_equal(done[0], wanted)


def test_enter_starts_a_new_dream_and_finished_ones_are_scored(
    viewer: DreamViewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CarRacing, "max_steps", 4)
    viewer.close()
    viewer = DreamViewer(CAR, 1, viewer.side_by_side.agent)
    steps = [viewer.side_by_side.step_number]
    for _ in range(6):
        viewer.advance()
        steps.append(viewer.side_by_side.step_number)
    assert viewer.scene().banner == "finished: enter for a new dream"
    viewer.press("enter")
    viewer.advance()
    steps.append(viewer.side_by_side.step_number)
    viewer.close()
    assert steps == [0, 1, 2, 3, 4, 4, 4, 1] and len(viewer.scores) == 1


def test_both_worlds_are_shown_with_their_scores(viewer: DreamViewer) -> None:
    viewer.press("space")
    viewer.advance()
    both, scene = viewer.side_by_side, viewer.scene()
    dream, real = scene.panels
    assert dream.caption == f"the dream: {both.dream_score:.0f}"
    assert real.caption == f"the real world: {both.real_score:.0f}"
    np.testing.assert_array_equal(dream.picture, both.dream_frame())
    assert dict(scene.readings) == {"step": "1", "temperature": "1.00", "player": "agent"}
    assert viewer.picture().shape == (*viewer.size[::-1], 3)
    both.dream_over = True
    viewer.advance()
    assert "(ended)" in viewer.scene().panels[0].caption


def test_where_the_real_world_cannot_be_run_the_dream_is_played_alone(
    saved: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(task: Task) -> None:
        raise UserError("no Box2D here")

    monkeypatch.setattr(dream_module, "stock_env", missing)
    with closing(DreamViewer(CAR, 1, saved)) as viewer:
        viewer.advance()
        assert len(viewer.scene().panels) == 1 and viewer.picture().shape == (*viewer.size[::-1], 3)
    assert "the dream alone: no Box2D here" in capsys.readouterr().err


def test_an_agent_of_another_world_is_refused(tmp_path: Path) -> None:
    dreamer("take-cover").save(tmp_path)
    with pytest.raises(UserError, match="is an agent for take-cover, not for car-racing"):
        DreamViewer(CAR, 1, str(tmp_path))


def test_an_agent_that_cannot_dream_is_refused() -> None:
    agent = dreamer()
    agent.starts = None
    with pytest.raises(UserError, match="holds no recorded frames"):
        DreamViewer(CAR, 1, agent)


def test_the_dream_of_a_world_with_a_board_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="bin-packing cannot be played by hand in its dream"):
        DreamViewer(get_task("bin-packing"), 1)


def test_the_dream_that_is_played_has_the_dropout_that_was_asked_for(saved: str) -> None:
    frames = []
    for dropout in (0.0, 0.0, 0.4):
        with closing(DreamViewer(CAR, 1, saved, dropout=dropout)) as viewer:
            viewer.press("up")
            for _ in range(4):
                viewer.advance()
            frames.append(viewer.side_by_side.dream_frame())
    assert (frames[0] == frames[1]).all() and (frames[0] != frames[2]).any()
