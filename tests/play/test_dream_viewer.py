"""Playing in the dream, with the real world beside it, in a window that nobody sees."""

from pathlib import Path

import pygame
import pytest

from test_dream import dreamer, driven
from test_play import press, release
from worldmodels.agent import load_agent
from worldmodels.core.errors import UserError
from worldmodels.play.window import Game
from worldmodels.play.dream import DreamGame, play_dream
from worldmodels.render.picture import stock_env
from worldmodels.core.seeds import episode_seeds
from worldmodels.tasks import get_task

CAR = get_task("car-racing")


@pytest.fixture(autouse=True)
def no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


@pytest.fixture
def saved(tmp_path: Path) -> str:
    dreamer(end_bias=-20.0).save(tmp_path)
    return str(tmp_path)


def test_the_keys_drive_the_dream_and_the_real_world(saved: str) -> None:
    scores: list[float] = []

    def tick(game: Game) -> None:
        assert isinstance(game, DreamGame)
        if not scores:
            press(pygame.K_UP)
        scores.append(game.beside.real_score)
        if len(scores) == 9:
            assert game.beside.step_number == 8 and game.beside.dream_score != 0
            release(pygame.K_UP)
            press(pygame.K_ESCAPE)

    play_dream(CAR, 1, saved, tick=tick)
    env = stock_env(CAR)
    driven(load_agent(saved), env, episode_seeds("play", 1, 1, 0)[0])
    wanted = [0.0]
    for _ in range(8):
        wanted.append(wanted[-1] + float(env.step(CAR.key_action(frozenset({"up"})))[1]))
    assert scores == pytest.approx(wanted)


def test_plus_and_minus_change_the_temperature_and_a_lets_the_agent_act(saved: str) -> None:
    seen: list[tuple[float, bool]] = []

    def tick(game: Game) -> None:
        assert isinstance(game, DreamGame)
        seen.append((game.temperature, game.agent_drives))
        keys = [pygame.K_PLUS, pygame.K_MINUS, pygame.K_MINUS, pygame.K_a, pygame.K_ESCAPE]
        press(keys[len(seen) - 1])

    play_dream(CAR, 1, saved, temperature=1.0, tick=tick)
    assert [one for one, _ in seen] == pytest.approx([1.0, 1.15, 1.0, 1 / 1.15, 1 / 1.15])
    assert [agent for _, agent in seen] == [False] * 4 + [True]


def test_enter_begins_a_new_dream_and_finished_ones_are_scored(saved: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(CAR), "max_steps", 4)
    steps: list[int] = []

    def tick(game: Game) -> None:
        assert isinstance(game, DreamGame)
        steps.append(game.beside.step_number)
        if len(steps) == 7:
            press(pygame.K_RETURN)
        if len(steps) == 9:
            press(pygame.K_ESCAPE)

    scores = play_dream(CAR, 1, saved, tick=tick)
    assert steps == [0, 1, 2, 3, 4, 4, 4, 1, 2] and len(scores) == 1


def test_an_agent_of_another_world_is_refused(tmp_path: Path) -> None:
    dreamer("take-cover").save(tmp_path)
    with pytest.raises(UserError, match="is an agent for take-cover, not for car-racing"):
        play_dream(CAR, 1, str(tmp_path))
