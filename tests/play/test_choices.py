"""Packing bins by hand in a window that nobody sees: numbers, clicks, the agent and best fit, and what is kept."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pygame
import pytest
import torch

from test_play import press
from worldmodels.agent import Agent
from worldmodels.core.errors import UserError
from worldmodels.evaluation import evaluate
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.play.window import Game, play
from worldmodels.play.choices import ChoiceGame, settled
from worldmodels.play.dream import play_dream
from worldmodels.render.picture import stock_env
from worldmodels.core.seeds import episode_seeds
from worldmodels.data.episodes import EpisodeStore
from worldmodels.tasks import get_task
from worldmodels.tasks.bin_packing.task import BinPacking
from worldmodels.tasks.bin_packing.board import BinsBoard
from worldmodels.vision.conv_vae import ConvVAE

BEAT = 6
"""Pictures per choice of an automatic player: 30 and 5 in a second."""


@pytest.fixture(autouse=True)
def no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> int:
    """Episodes of so many items."""
    monkeypatch.setattr(BinPacking, "max_steps", 40)
    return 40


def script(*moves: Callable[[ChoiceGame], None]) -> Callable[[Game], None]:
    """Does the moves, one before each picture, and closes the window."""
    left = list(moves)

    def tick(game: Game) -> None:
        assert isinstance(game, ChoiceGame)
        if left:
            left.pop(0)(game)
        else:
            game.running = False

    return tick


def type_(text: str) -> None:
    press(*(getattr(pygame, f"K_{letter}") for letter in text))


def click(game: ChoiceGame, level: int) -> None:
    left, right = game.board.size[0], 0
    for across in range(game.board.size[0]):
        if game.board.choice_at((across, 300)) == level:
            left, right = min(left, across), max(right, across)
    pygame.event.post(pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=1, pos=((left + right) // 2, 300)))


def fullest(game: ChoiceGame) -> int:
    return int(np.flatnonzero(game.allowed).max())


def wait(game: ChoiceGame) -> None:
    """Let a picture pass."""


def saved_agent(folder: Path) -> str:
    """An untrained agent whose biases like full bins: under the mask that is best fit."""
    torch.manual_seed(0)
    controller = torch.zeros(30 * 13)
    controller[:30] = torch.linspace(-1, 1, 30)
    Agent(get_task("bin-packing"), ConvVAE(4), MDNRNN(4, 30, 8, 2, reward=True), controller, features=("z", "h")).save(
        folder
    )
    return str(folder)


def test_the_dream_of_such_a_world_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="bin-packing cannot be played by hand in its dream"):
        play_dream(get_task("bin-packing"), 1, saved_agent(tmp_path))


@pytest.mark.parametrize("choices", [2, 9, 10, 11, 30, 101])
def test_every_number_can_be_typed_and_none_waits_longer_than_it_must(choices: int) -> None:
    numbers = [str(number) for number in range(choices)]
    for number in numbers:
        assert all(not settled(number[:end], choices) for end in range(1, len(number)))
        assert settled(number, choices) == (
            not any(len(one) > len(number) and one.startswith(number) for one in numbers)
        )


@pytest.mark.parametrize("name", ["bin-packing", "bin-packing-9-bounded-waste"])
def test_who_types_what_best_fit_would_gets_what_best_fit_gets(name: str, short: int) -> None:
    def choose(game: ChoiceGame) -> None:
        assert game.score == game.rule_score
        level = str(fullest(game))
        type_(level)
        if not settled(level, len(game.allowed)):
            press(pygame.K_RETURN)

    scores = play(get_task(name), 7, tick=script(*[choose] * short, wait))
    world, rule = get_task(name).rule("best-fit")
    assert scores == evaluate(world, rule, "native", [episode_seeds("play", 7, 1, 0)[0]], 1).tolist()


def test_a_click_on_a_column_chooses_its_level_and_best_fit_packs_the_same_items_beside(short: int) -> None:
    seen: list[tuple[int, float, float]] = []

    def careless(game: ChoiceGame) -> None:
        seen.append((game.step, game.score, game.rule_score))
        click(game, 0)

    play(
        get_task("bin-packing"),
        7,
        tick=script(*[careless] * short, wait, lambda game: seen.append((game.step, game.score, game.rule_score))),
    )
    steps, mine, its = zip(*seen, strict=True)
    assert steps[1:short] == tuple(range(1, short)) and steps[-1] == short
    task = get_task("bin-packing")
    env = stock_env(task)
    env.reset(seed=episode_seeds("play", 7, 1, 0)[0])
    assert mine[-1] == sum(float(env.step(0)[1]) for _ in range(short))
    world, rule = task.rule("best-fit")
    assert its[-1] == evaluate(world, rule, "native", [episode_seeds("play", 7, 1, 0)[0]], 1)[0] > mine[-1]


def test_what_is_not_allowed_is_said_and_costs_nothing() -> None:
    said: list[str] = []

    def look(game: ChoiceGame) -> None:
        assert (game.step, game.score, game.over) == (0, 0.0, False)
        said.append(game.message())

    play(
        get_task("bin-packing"),
        1,
        tick=script(
            lambda game: type_("5"),
            look,
            lambda game: click(game, 29),
            look,
            lambda game: type_("1"),
            look,
            lambda game: press(pygame.K_BACKSPACE),
            look,
        ),
    )
    assert said[0].startswith("no open bin has level 5") and "does not fit into level 29" in said[1]
    assert said[2].startswith("1_") and said[3] == "your turn"
    said.clear()
    play(get_task("bin-packing-9-linear-waste"), 1, tick=script(lambda game: type_("9"), look))
    assert said == ["expected a number from 0 to 8, got 9"]


def test_enter_after_a_number_that_needed_none_does_not_lose_the_episode() -> None:
    seen: list[tuple[int, int]] = []

    def look(game: ChoiceGame) -> None:
        seen.append((game.seed, game.step))

    play(
        get_task("bin-packing"),
        1,
        tick=script(
            lambda game: (type_("0"), press(pygame.K_RETURN)),
            look,
            lambda game: press(pygame.K_RETURN),
            look,
            lambda game: type_("0"),
            look,
            lambda game: type_("n"),
            look,
        ),
    )
    first, second, third = (episode_seeds("play", 1, 1, track)[0] for track in range(3))
    assert seen == [(first, 1), (second, 0), (second, 1), (third, 0)]


def test_best_fit_chooses_at_the_speed_of_the_world_until_it_is_paused_or_a_person_chooses() -> None:
    seen: list[tuple[int, str, bool]] = []

    def look(game: ChoiceGame) -> None:
        seen.append((game.step, game.player, game.score == game.rule_score))

    play(
        get_task("bin-packing"),
        1,
        tick=script(
            lambda game: type_("b"),
            *[wait] * (3 * BEAT - 1),
            look,
            lambda game: type_("p"),
            *[wait] * (2 * BEAT - 1),
            look,
            lambda game: type_("p"),
            *[wait] * (BEAT - 1),
            look,
            lambda game: type_("0"),
            *[wait] * (2 * BEAT - 1),
            look,
        ),
    )
    assert seen == [(3, "best fit", True), (3, "best fit", True), (4, "best fit", True), (5, "you", False)]


def test_the_agent_takes_over_on_a_and_gives_back(tmp_path: Path) -> None:
    seen: list[tuple[int, str, bool]] = []

    def look(game: ChoiceGame) -> None:
        seen.append((game.step, game.player, game.score == game.rule_score))
        assert not game.paused

    moves = [lambda game: type_("a"), *[wait] * (30 * BEAT - 1), look, lambda game: type_("a"), *[wait] * BEAT, look]
    from_pause = [lambda game: type_("apa"), look, lambda game: type_("0")]
    play(get_task("bin-packing"), 1, agent=saved_agent(tmp_path), tick=script(*moves, *from_pause, wait))
    assert seen == [(30, "agent", True), (30, "you", True), (30, "you", True)]


def test_without_an_agent_the_window_says_so_and_the_person_goes_on() -> None:
    said: list[str] = []

    def look(game: ChoiceGame) -> None:
        said.append(f"{game.step} {game.player}: {game.message()}")

    none = "/nowhere"
    moves = [lambda game: type_("a"), look, lambda game: type_("0"), look]
    play(get_task("bin-packing"), 1, agent=none, tick=script(*moves))
    assert said[0].startswith("0 you: no agent called '/nowhere'") and said[1] == "1 you: your turn"


def test_a_window_that_loses_the_focus_pauses_the_automatic_player_alone() -> None:
    paused: list[bool] = []

    def leave(game: ChoiceGame) -> None:
        pygame.event.post(pygame.event.Event(pygame.WINDOWFOCUSLOST))

    def look(game: ChoiceGame) -> None:
        paused.append(game.paused)

    play(get_task("bin-packing"), 1, tick=script(leave, look, lambda game: type_("b"), leave, look))
    assert paused == [False, True]


@pytest.mark.parametrize("name", ["bin-packing", "bin-packing-9-perfect-packing"])
def test_a_finished_episode_is_kept_as_it_was_played(name: str, tmp_path: Path, short: int) -> None:
    task = get_task(name)
    scores = play(task, 3, tmp_path, tick=script(*[lambda game: click(game, fullest(game))] * short, wait))
    (episode,) = EpisodeStore(tmp_path).flushes()[0].episodes()
    assert len(episode.actions) == short and not episode.terminated and scores == [episode.rewards.sum()]
    env = task.make(1, "native")
    frames, _ = env.reset(seed=[episode.seed])
    for step, action in enumerate(episode.actions):
        np.testing.assert_array_equal(episode.frames[step], frames[0])
        assert action.sum() == 1 and action.shape == (task.action_size,)
        frames, rewards, *_ = env.step(action.argmax()[None])
        assert rewards[0] == episode.rewards[step]
    np.testing.assert_array_equal(episode.frames[-1], frames[0])


@pytest.mark.parametrize("capacity", [9, 30])
def test_the_board_shows_which_bins_take_the_item_and_how_many_there_are(capacity: int) -> None:
    pygame.font.init()
    board, screen = BinsBoard(capacity), pygame.Surface((1200, 520))
    state = np.zeros(capacity + 1, np.int64)
    state[[2, 5, capacity - 1]], state[-1] = (1, 3, 200), 3
    allowed = (np.arange(capacity) + 3 <= capacity) & (state[:-1] > 0)
    allowed[0] = True
    board.draw(screen, state, allowed, None)
    plain = pygame.surfarray.array3d(screen)
    where = np.array([board.choice_at((across, 100)) for across in range(1200)])
    blue = (plain == (0x4A, 0xA8, 0xFF)).all(axis=-1)
    amounts = {level: blue[where == level].sum() for level in range(capacity)}
    assert {level for level, amount in amounts.items() if amount} == set(np.flatnonzero(allowed).tolist())
    assert amounts[5] > amounts[2] > amounts[0]
    screen.fill(0)
    board.draw(screen, state, allowed, 5)
    changed = (pygame.surfarray.array3d(screen) != plain).any(axis=(1, 2))
    assert set(where[changed].tolist()) == {5}
    assert board.choice_at((5, 100)) is None and board.choice_at((600, 600)) is None


def test_the_stock_world_of_every_variant_shows_what_its_agents_see() -> None:
    for name in ("bin-packing", "bin-packing-9-linear-waste"):
        task = get_task(name)
        env, own = stock_env(task), task.make(1, "native")
        first, _ = env.reset(seed=5)
        np.testing.assert_array_equal(first[None], own.reset(seed=[5])[0])
        assert env.action_space == task.action_space
