"""Playing in a window that nobody sees: keys are pressed by the tests, the world is the stock one."""

from collections.abc import Callable, Iterable
from pathlib import Path

import gymnasium
import numpy as np
import pygame
import pytest

from worldmodels.play import window as play_module
from worldmodels.core.errors import UserError
from worldmodels.play.window import Game, play
from worldmodels.core.seeds import episode_seeds
from worldmodels.data.episodes import EpisodeStore
from worldmodels.tasks import get_task


@pytest.fixture(autouse=True)
def no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


def press(*keys: int) -> None:
    for key in keys:
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key))


def release(key: int) -> None:
    pygame.event.post(pygame.event.Event(pygame.KEYUP, key=key))


def script(moves: Iterable[tuple[int, Callable[[], None]]], last: int) -> Callable[[Game], None]:
    """Presses keys before the given steps, and escape before the last."""
    plan = dict(moves)
    count = 0

    def tick(game: Game) -> None:
        nonlocal count
        plan.get(count, lambda: None)()
        if count == last:
            press(pygame.K_ESCAPE)
        count += 1

    return tick


def test_the_arrow_keys_drive_the_stock_world_and_the_score_is_the_sum_of_its_rewards() -> None:
    seen: list[tuple[float, int]] = []

    def tick(game: Game) -> None:
        if not seen:
            press(pygame.K_UP)
        if len(seen) == 10:
            release(pygame.K_UP)
            press(pygame.K_LEFT)
        seen.append((game.score, game.step))
        if len(seen) == 20:
            press(pygame.K_ESCAPE)

    play(get_task("car-racing"), seed=3, tick=tick)
    env = gymnasium.make("CarRacing-v3", render_mode="rgb_array")
    env.reset(seed=episode_seeds("play", 3, 1, 0)[0])
    score = 0.0
    for step in range(19):
        action = np.array([0.0, 1.0, 0.0] if step < 10 else [-1.0, 0.0, 0.0], dtype=np.float32)
        score += float(env.step(action)[1])
    env.close()
    assert seen[19] == (pytest.approx(score), 19)


def test_a_finished_episode_is_saved_whole_and_aligned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = get_task("car-racing")
    monkeypatch.setattr(type(task), "max_steps", 12)
    scores = play(task, 5, tmp_path / "mine", tick=script([(0, lambda: press(pygame.K_UP))], last=14))
    (episode,) = EpisodeStore(tmp_path / "mine").flushes()[0].episodes()
    assert len(scores) == 1 and scores[0] == pytest.approx(float(episode.rewards.sum()), abs=1e-3)
    assert episode.frames.shape == (13, 64, 64, 3) and len(episode.actions) == len(episode.rewards) == 12
    assert (episode.actions == np.array([0, 1, 0], np.float32)).all()
    assert not episode.terminated  # a limit ended it, not the world
    env = gymnasium.make("CarRacing-v3", render_mode="rgb_array")
    first, _ = env.reset(seed=episode.seed)
    env.close()
    assert (episode.frames[0] == task.frames(first[None])[0]).all()


def test_saved_episodes_are_added_to_those_already_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = get_task("car-racing")
    monkeypatch.setattr(type(task), "max_steps", 3)
    for _ in range(2):
        play(task, 5, tmp_path, tick=script([], last=5))
    assert len(EpisodeStore(tmp_path).flushes()) == 2


def test_enter_starts_a_new_track_and_p_pauses() -> None:
    seeds: list[int] = []
    steps: list[int] = []

    def tick(game: Game) -> None:
        seeds.append(game.seed)
        steps.append(game.step)
        if len(steps) == 4:
            press(pygame.K_p)
        if len(steps) == 8:
            press(pygame.K_p, pygame.K_RETURN)
        if len(steps) == 10:
            press(pygame.K_ESCAPE)

    play(get_task("car-racing"), seed=1, tick=tick)
    assert steps[3] == steps[7] == 3  # paused
    assert len(set(seeds)) == 2 and steps[8] == 1  # a new track, and its first step


def test_the_key_a_lets_the_agent_drive_and_gives_the_wheel_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Turns:
        """Always half left."""

        def reset(self) -> None: ...

        def act(self, observations: np.ndarray) -> np.ndarray:
            return np.array([[-0.5, 0.25, 0.0]], np.float32)

    task = get_task("car-racing")
    monkeypatch.setattr(type(task), "max_steps", 9)
    monkeypatch.setattr(Game, "_load_policy", lambda game: Turns())
    toggle = [(0, lambda: press(pygame.K_UP)), (3, lambda: press(pygame.K_a)), (6, lambda: press(pygame.K_a))]
    play(task, 5, tmp_path, tick=script(toggle, last=10))
    (episode,) = EpisodeStore(tmp_path).flushes()[0].episodes()
    mine, its = [0.0, 1.0, 0.0], [-0.5, 0.25, 0.0]
    assert episode.actions.tolist() == [mine] * 3 + [its] * 3 + [mine] * 3


def test_the_readings_are_those_of_the_world() -> None:
    readings: list[dict[str, str]] = []

    def tick(game: Game) -> None:
        readings.append({name: value for name, value, _ in game.readings()})
        press(pygame.K_UP)
        if len(readings) == 26:
            press(pygame.K_ESCAPE)

    play(get_task("car-racing"), seed=1, tick=tick)
    assert readings[0] == {"score": "0", "step": "0", "time": "0.0 / 20 s", "speed": "0", "driver": "you"}
    assert readings[25]["time"] == "0.5 / 20 s" and int(readings[25]["speed"]) > 5


def test_a_window_that_loses_the_focus_pauses_and_lets_go_of_the_keys() -> None:
    states: list[tuple[bool, bool]] = []

    def tick(game: Game) -> None:
        states.append((game.paused, bool(game.held)))
        if len(states) == 1:
            press(pygame.K_UP)
        if len(states) == 2:
            pygame.event.post(pygame.event.Event(pygame.WINDOWFOCUSLOST))
        if len(states) == 3:
            press(pygame.K_ESCAPE)

    play(get_task("car-racing"), seed=1, tick=tick)
    assert states == [(False, False), (False, True), (True, False)]


def test_an_agent_that_cannot_be_loaded_is_said_in_the_window(tmp_path: Path) -> None:
    notes: list[str] = []

    def tick(game: Game) -> None:
        if not notes:
            press(pygame.K_a)
        notes.append(game.note)
        if len(notes) == 3:
            press(pygame.K_ESCAPE)

    play(get_task("car-racing"), seed=1, agent=str(tmp_path / "none"), tick=tick)
    assert "no such file" in notes[-1]


def test_without_a_screen_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(play_module.sys, "platform", "linux")
    with pytest.raises(UserError, match="no screen"):
        play(get_task("car-racing"), seed=1)


def test_saving_into_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        play(get_task("car-racing"), seed=1, save=tmp_path / "file")
