"""Playing the real world without a window: keys by name, the stock world, the agent that takes over, kept episodes."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from worldmodels.core.errors import UserError
from worldmodels.core.seeds import episode_seeds
from worldmodels.data.episodes import EpisodeStore
from worldmodels.play import world as world_module
from worldmodels.play.choices import viewer_of
from worldmodels.play.viewer import steering_help
from worldmodels.play.world import WorldViewer
from worldmodels.tasks import get_task
from worldmodels.tasks.base import Observations, playing_of
from worldmodels.tasks.car_racing.task import CarRacing
from worlds import Scripted

CAR = get_task("car-racing")


@pytest.fixture
def viewer() -> Iterator[WorldViewer]:
    with closing(WorldViewer(CAR, seed=1)) as made:
        yield made


def go(viewer: WorldViewer, ticks: int) -> None:
    for _ in range(ticks):
        viewer.advance()


class TurnsLeft:
    """An agent that always steers half left; it counts what it has observed."""

    observed = 0

    def policy(self, num_envs: int) -> "TurnsLeft":
        return self

    def reset(self) -> None: ...

    def join(self, steps: int) -> None: ...

    def act(self, observations: Observations) -> np.ndarray:
        self.observed += 1
        return np.array([[-0.5, 0.25, 0.0]], np.float32)


def test_the_arrow_keys_act_in_the_stock_world_and_the_score_is_the_sum_of_its_rewards() -> None:
    with closing(WorldViewer(CAR, seed=3)) as viewer:
        viewer.press("up")
        go(viewer, 10)
        viewer.release("up")
        viewer.press("left")
        go(viewer, 9)
        found = viewer.score, viewer.step
    env = gymnasium.make("CarRacing-v3", render_mode="rgb_array")
    env.reset(seed=episode_seeds("play", 3, 1, 0)[0])
    score = 0.0
    for step in range(19):
        action = np.array([0.0, 1.0, 0.0] if step < 10 else [-1.0, 0.0, 0.0], dtype=np.float32)
        score += float(env.step(action)[1])
    env.close()
    assert found == (pytest.approx(score), 19)


def test_a_finished_episode_is_saved_whole_and_aligned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CarRacing, "max_steps", 12)
    with closing(WorldViewer(CAR, 5, tmp_path / "mine")) as viewer:
        viewer.press("up")
        go(viewer, 14)
        assert viewer.over and viewer.scene().message == f"saved to {tmp_path / 'mine'}"
    (episode,) = EpisodeStore(tmp_path / "mine").shards()[0].episodes()
    (score,) = viewer.scores
    assert score == pytest.approx(float(episode.rewards.sum()), abs=1e-3)
    assert episode.frames.shape == (13, 64, 64, 3) and len(episode.actions) == len(episode.rewards) == 12
    assert (episode.actions == np.array([0, 1, 0], np.float32)).all()
    assert not episode.terminated  # a limit ended it, not the world
    env = gymnasium.make("CarRacing-v3", render_mode="rgb_array")
    first, _ = env.reset(seed=episode.seed)
    env.close()
    assert (episode.frames[0] == CAR.frames(first[None])[0]).all()


def test_saved_episodes_are_added_to_those_already_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CarRacing, "max_steps", 3)
    for seed in (5, 6):
        with closing(WorldViewer(CAR, seed, tmp_path)) as viewer:
            go(viewer, 5)
            viewer.press("enter")
            go(viewer, 3)
    saved = [shard.seeds.tolist() for shard in EpisodeStore(tmp_path).shards()]
    assert saved == [episode_seeds("play", seed, 1, number) for seed in (5, 6) for number in (0, 1)]


@pytest.mark.parametrize("key", ["escape", "q"])
def test_the_episode_that_is_unfinished_when_the_person_quits_is_saved_as_cut_short(
    tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(WorldViewer(CAR, 5, tmp_path)) as viewer:
        viewer.press("up")
        go(viewer, 6)
        viewer.press(key)
        assert not viewer.running
    (episode,) = EpisodeStore(tmp_path).shards()[0].episodes()
    assert len(episode.actions) == 6 and episode.frames.shape[0] == 7 and not episode.terminated
    assert f"the unfinished episode, 6 steps, was saved to {tmp_path}" in capsys.readouterr().err


def test_quitting_before_the_first_step_or_after_the_end_saves_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CarRacing, "max_steps", 3)
    with closing(WorldViewer(CAR, 5, tmp_path / "none")) as viewer:
        viewer.press("escape")
    with closing(WorldViewer(CAR, 5, tmp_path / "one")) as viewer:
        go(viewer, 4)
        viewer.press("escape")
        viewer.quit()
    assert not EpisodeStore(tmp_path / "none").paths() and len(EpisodeStore(tmp_path / "one").shards()) == 1


@pytest.mark.parametrize(("letter", "arrow"), [("w", "up"), ("a", "left"), ("s", "down"), ("d", "right")])
def test_letters_steer_like_arrows(viewer: WorldViewer, letter: str, arrow: str) -> None:
    viewer.press(letter)
    assert viewer.held == {arrow}
    viewer.release(letter)
    assert viewer.held == set()


def test_a_gamepad_steers_by_degrees_unless_a_key_is_held(tmp_path: Path) -> None:
    with closing(WorldViewer(CAR, 5, tmp_path)) as viewer:
        viewer.tilt(-0.25, 0.5, 0.0)
        go(viewer, 1)
        viewer.press("right")
        go(viewer, 1)
        viewer.release("right")
        viewer.tilt(0.0, 0.0, 0.5)
        go(viewer, 1)
        viewer.tilt(0.0, 0.0, 0.0)
        go(viewer, 1)
        viewer.quit()
    (episode,) = EpisodeStore(tmp_path).shards()[0].episodes()
    np.testing.assert_allclose(episode.actions, [[-0.25, 0.5, 0], [1, 0, 0], [0, 0, 0.4], [0, 0, 0]], atol=1e-6)


def test_a_world_of_few_actions_is_played_with_a_gamepad_by_directions() -> None:
    playing = playing_of(get_task("take-cover"))
    found = [int(playing.stick_action(steer, 1.0, 0.0)) for steer in (-0.9, -0.3, 0.0, 0.7)]
    assert found == [2, 0, 0, 1]


@pytest.mark.parametrize("way", ["key", "stick"])
def test_steering_takes_over_from_the_agent(monkeypatch: pytest.MonkeyPatch, viewer: WorldViewer, way: str) -> None:
    monkeypatch.setattr(world_module, "agent_for", lambda task, given: TurnsLeft())
    viewer.hand_to_agent()
    go(viewer, 2)
    assert viewer.player == "agent" and viewer.help.startswith("the agent plays: arrow keys or WASD take over")
    viewer.tilt(0.5, 0.0, 0.0) if way == "stick" else viewer.press("d")
    go(viewer, 1)
    assert viewer.player == "you" and viewer.help.startswith("arrow keys or WASD act    space agent")


def test_the_help_names_the_keys_that_the_world_has() -> None:
    assert steering_help(playing_of(CAR)) == "arrow keys or WASD"
    assert steering_help(playing_of(get_task("take-cover"))) == "left, right or a, d"


def test_a_world_that_goes_black_at_its_end_keeps_its_last_living_picture(
    monkeypatch: pytest.MonkeyPatch, viewer: WorldViewer
) -> None:
    go(viewer, 2)
    (living,) = viewer.scene().panels
    monkeypatch.setattr(viewer.env, "render", lambda: np.zeros_like(living.picture))
    viewer.over, viewer._picture = True, None
    (last,) = viewer.scene().panels
    np.testing.assert_array_equal(last.picture, living.picture)


def test_an_episode_that_is_given_up_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(CarRacing, "max_steps", 4)
    with closing(WorldViewer(CAR, 5, tmp_path)) as viewer:
        go(viewer, 2)
        viewer.press("enter")
        go(viewer, 4)
    (episode,) = EpisodeStore(tmp_path).shards()[0].episodes()
    assert (episode.seed, len(episode.actions)) == (episode_seeds("play", 5, 1, 1)[0], 4)
    assert "the unfinished track before was not saved; esc saves an unfinished one" in capsys.readouterr().err


def test_enter_starts_a_new_track_and_p_pauses(viewer: WorldViewer) -> None:
    go(viewer, 3)
    first = viewer.seed
    viewer.press("p")
    go(viewer, 4)
    assert viewer.step == 3 and viewer.scene().banner == "paused: p to go on"
    viewer.press("p")
    viewer.press("enter")
    go(viewer, 1)
    assert viewer.step == 1 and viewer.seed != first and viewer.scene().banner is None


@pytest.mark.parametrize("key", ["escape", "q"])
def test_escape_and_q_end_the_session(viewer: WorldViewer, key: str) -> None:
    assert viewer.running
    viewer.press(key)
    assert not viewer.running


def test_the_key_a_lets_the_agent_act_and_gives_the_wheel_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = TurnsLeft()
    monkeypatch.setattr(CarRacing, "max_steps", 9)
    monkeypatch.setattr(world_module, "agent_for", lambda task, given: agent)
    with closing(WorldViewer(CAR, 5, tmp_path)) as viewer:
        viewer.press("up")
        go(viewer, 3)
        viewer.press("space")
        assert viewer.readings()["player"] == "agent"
        go(viewer, 3)
        viewer.press("space")
        go(viewer, 4)
        assert viewer.readings()["player"] == "you"
    (episode,) = EpisodeStore(tmp_path).shards()[0].episodes()
    mine, its = [0.0, 1.0, 0.0], [-0.5, 0.25, 0.0]
    assert episode.actions.tolist() == [mine] * 3 + [its] * 3 + [mine] * 3
    assert agent.observed == 6, "it watches after it has acted, so that it knows where it is"


def test_acting_leaves_the_number_of_threads_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    class Counts(TurnsLeft):
        def act(self, observations: Observations) -> np.ndarray:
            threads.append(torch.get_num_threads())
            return super().act(observations)

    monkeypatch.setattr(world_module, "agent_for", lambda task, given: Counts())
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with closing(WorldViewer(CAR, 5)) as viewer:
            viewer.press("space")
            go(viewer, 2)
            viewer.picture()
            assert torch.get_num_threads() == 2 and threads == [1, 1]
    finally:
        torch.set_num_threads(before)


def test_the_readings_are_those_of_the_world(viewer: WorldViewer) -> None:
    assert viewer.readings() == {"score": "0", "step": "0", "time": "0.0 / 20 s", "speed": "0", "player": "you"}
    viewer.press("up")
    go(viewer, 25)
    readings = viewer.readings()
    assert readings["time"] == "0.5 / 20 s" and int(readings["speed"]) > 5


def test_a_viewer_that_loses_the_focus_pauses_and_lets_go_of_the_keys(viewer: WorldViewer) -> None:
    viewer.press("up")
    assert (viewer.paused, viewer.held) == (False, {"up"})
    viewer.lose_focus()
    assert (viewer.paused, viewer.held) == (True, set())


def test_the_scene_shows_what_frames_keep_of_the_world_and_the_picture_holds_it(viewer: WorldViewer) -> None:
    scene = viewer.scene()
    (panel,) = scene.panels
    drawn = np.asarray(viewer.env.render())
    assert panel.picture.shape == (round(len(drawn) * 84 / 96), *drawn.shape[1:])
    np.testing.assert_array_equal(panel.picture, drawn[: len(panel.picture)])
    assert scene.title == "CarRacing" and "new track" in scene.help and "drive" not in scene.help
    picture = viewer.picture()
    assert picture.shape == (*viewer.size[::-1], 3) and picture.dtype == np.uint8
    before = picture.copy()
    viewer.press("up")
    go(viewer, 5)
    assert (viewer.picture()[:630] != before[:630]).any() and (picture == before).all()


def test_an_agent_that_cannot_be_loaded_is_said_and_the_person_goes_on(tmp_path: Path) -> None:
    with closing(WorldViewer(CAR, seed=1, agent=str(tmp_path / "none"))) as viewer:
        viewer.press("space")
        go(viewer, 2)
        assert "no such file" in viewer.scene().message
        assert viewer.step == 2 and viewer.readings()["player"] == "you"


def test_saving_into_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        WorldViewer(CAR, seed=1, save=tmp_path / "file")


def test_a_world_that_does_not_say_how_it_is_played_is_refused() -> None:
    with pytest.raises(UserError, match="scripted cannot be watched or played"):
        viewer_of(Scripted(), 1)
