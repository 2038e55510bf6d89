"""Gymnasium worlds that people play: keys of the window, what the help says of them, and worlds without keys."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pygame
import pytest
import torch

from gym_worlds import LENGTH, action_number
from windows import key_down, key_up, pressing, script
from worldmodels.agent import untrained_agent
from worldmodels.cli import main as cli
from worldmodels.core.errors import UserError
from worldmodels.data.episodes import Episode, EpisodeStore, Shard
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.play import window
from worldmodels.play.dream import DreamViewer
from worldmodels.play.viewer import Viewer, action_help, steering_help
from worldmodels.play.window import play, play_dream
from worldmodels.play.world import WorldViewer
from worldmodels.tasks import Task, get_task
from worldmodels.tasks.base import playing_of
from worldmodels.vision.base import make_vision

DIARY = "gym:gym_worlds:toy/Diary-v0"


@pytest.fixture(autouse=True)
def no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


def diary(**options: Any) -> Task:
    return get_task(DIARY, options)


def releasing(*keys: int) -> Callable[[Any], object]:
    def release(viewer: Viewer) -> None:
        for key in keys:
            pygame.event.post(key_up(key))

    return release


def held(*keys: int) -> list[Callable[[Any], object]]:
    """Press keys for one step."""
    return [pressing(*keys), releasing(*keys)]


def played(task: Task, folder: Path, *moves: Callable[[Any], object]) -> list[Episode]:
    """What is saved of playing in a window."""
    play(task, 1, folder, tick=script(*moves))
    store = EpisodeStore(folder)
    return [episode for path in store.paths() for episode in Shard(path).episodes()]


def numbers(task: Task, episode: Episode) -> list[int]:
    """The actions as the world's pictures tell them, which must be those that were recorded."""
    pictured = (episode.frames[1:, 0, 0, 2] // 4).tolist()
    assert pictured == [action_number(task.env_action(one[None])[0]) for one in episode.actions]
    return [int(number) for number in pictured]


def test_choices_are_made_with_arrows_letters_and_digits(tmp_path: Path) -> None:
    task = diary(length=40)
    keys = [pygame.K_LEFT, pygame.K_d, pygame.K_UP, pygame.K_3, pygame.K_KP0]
    moves = [move for key in keys for move in held(key)]
    (episode,) = played(task, tmp_path, *moves, pressing(pygame.K_ESCAPE))
    # Four choices from -1: the arrows make the second to the fourth, digits count from 0, and without a key the first.
    wanted = [action_number(choice) for pair in ((0, -1), (2, -1), (1, -1), (2, -1), (-1, -1)) for choice in pair]
    assert numbers(task, episode)[: len(wanted)] == wanted
    assert not episode.terminated, "the player quit"


def test_numbers_of_a_box_are_moved_by_pairs_of_keys_and_rest_at_zero(tmp_path: Path) -> None:
    task = diary(space="box", length=40)
    moves = [*held(pygame.K_LEFT), *held(pygame.K_RIGHT, pygame.K_UP), *held(pygame.K_DOWN)]
    (episode,) = played(task, tmp_path, *moves, pressing(pygame.K_q))
    actions = np.stack([task.env_action(one[None])[0] for one in episode.actions])
    nothing = [0.0, 0.0]
    wanted = [[-2.0, 0.0], nothing, [2.0, 10.0], nothing, nothing, nothing]
    np.testing.assert_allclose(actions[: len(wanted)], wanted, atol=1e-5)
    numbers(task, episode)


def test_further_numbers_and_choices_have_digits(tmp_path: Path) -> None:
    task = diary(space="square", length=40)
    moves = [*held(pygame.K_2, pygame.K_3), *held(pygame.K_1)]
    (episode,) = played(task, tmp_path / "box", *moves, pressing(pygame.K_ESCAPE))
    np.testing.assert_allclose(episode.actions[:4], [[0, 0, 1, -1], [0] * 4, [0, 0, -1, 0], [0] * 4], atol=1e-6)
    task = diary(space="multi-discrete", length=40)
    moves = [*held(pygame.K_RIGHT, pygame.K_UP, pygame.K_2), *held(pygame.K_1)]
    (episode,) = played(task, tmp_path / "parts", *moves, pressing(pygame.K_ESCAPE))
    found = [task.env_action(one[None])[0].tolist() for one in episode.actions[:4]]
    assert found == [[2, 1, 3], [0, 0, 0], [0, 0, 2], [0, 0, 0]]


def test_enter_starts_anew_p_pauses_and_a_finished_episode_is_scored_and_saved(tmp_path: Path) -> None:
    task, seen = diary(), []

    def look(viewer: Viewer) -> None:
        assert isinstance(viewer, WorldViewer)
        seen.append((viewer.step, viewer.scene().banner))

    wait: Callable[[Any], object] = lambda viewer: None  # noqa: E731
    scores: list[float] = []
    moves = [
        look, *held(pygame.K_RETURN), look, *held(pygame.K_p), look, *held(pygame.K_p),
        *[wait] * LENGTH, look, *held(pygame.K_RETURN), look,
    ]  # fmt: skip
    scores = play(task, 1, tmp_path, tick=script(*moves))
    assert seen == [
        (0, None),
        (2, None),
        (3, "paused: p to go on"),
        (LENGTH, "finished: enter for a new episode"),
        (2, None),
    ]
    assert scores == [sum(100.0 * (step + 1) + action_number(-1) for step in range(LENGTH))]
    found = [episode for path in EpisodeStore(tmp_path).paths() for episode in Shard(path).episodes()]
    assert [len(one.actions) for one in found] == [LENGTH, 3] and float(found[0].rewards.sum()) == scores[0]


def test_a_digit_that_another_keyboard_layout_writes_is_let_go_again() -> None:
    seen: list[list[str]] = []

    def down(viewer: Viewer) -> None:
        pygame.event.post(key_down(pygame.K_AMPERSAND, "1"))

    moves = [
        down,
        lambda viewer: seen.append(sorted(viewer.held)),
        releasing(pygame.K_AMPERSAND),
        *[lambda viewer: None] * 1,
    ]
    play(diary(length=40), 1, tick=script(*moves, lambda viewer: seen.append(sorted(viewer.held))))
    assert seen == [["1"], []]


def test_cart_pole_is_played_from_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, str]] = []
    show = window.show

    def look(viewer: Viewer) -> None:
        assert isinstance(viewer, WorldViewer)
        seen.append((float(viewer.env.unwrapped.state[1]), viewer.help))  # type: ignore[attr-defined]

    moves = [
        pressing(pygame.K_RIGHT),
        *[lambda viewer: None] * 3,
        look,
        releasing(pygame.K_RIGHT),
        pressing(pygame.K_LEFT),
    ]
    monkeypatch.setattr(window, "show", lambda make, tick: show(make, script(*moves, *[lambda viewer: None] * 5, look)))
    assert cli.main(["play", "gym:CartPole-v1"]) == 0
    (right, text), (left, _) = seen
    assert right > 0.3 and left < right - 0.5, "the cart is pushed to the right, and then back"
    assert text.startswith("left/a: action 0; right/d: action 1; 0, 1: the action of that number; no key: action 0   ")
    assert text.endswith("space agent    p pause    enter new episode    esc quit")


HELP = {
    "discrete": "left/a: action 1; up/w: action 2; right/d: action 3; 0 to 3: the action of that number; "
    "no key: action 0",
    "multi-discrete": "left/a: part 0 to 1; right/d: part 0 to 2; up/w: part 1 to 1; down/s: part 2 to 1; "
    "1: part 2 to 2; 2: part 2 to 3; no key: all first",
    "multi-binary": "left/a: part 0 to 1; right/d: part 1 to 1; up/w: part 2 to 1; no key: all first",
    "box": "left/a right/d: number 0 to -2 or 2; down/s up/w: number 1 to 0 or 10; no key: 0",
}


@pytest.mark.parametrize("space", HELP)
def test_the_help_says_which_key_makes_which_action(space: str) -> None:
    with closing(WorldViewer(diary(space=space), 1)) as viewer:
        assert viewer.help == f"{HELP[space]}    space agent    p pause    enter new episode    esc quit"
        assert viewer.help == viewer.scene().help


def test_names_and_keys_of_the_environment_itself_are_shown() -> None:
    playing = playing_of(get_task("gym:ALE/Pong-v5"))
    assert action_help(playing) == (
        "e: NOOP; f: FIRE; right/d: RIGHT; left/a: LEFT; 0 to 5: the action of that number; no key: NOOP"
    )
    assert steering_help(playing) == "left, right or a, d, e, f, 0 to 5"


def test_actions_without_a_key_are_counted_and_a_long_help_is_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    many = diary(space="many")
    assert action_help(playing_of(many)).endswith("no key: action 0; 90 of 100 actions have no key")
    play(many, 1, tick=script())
    assert f"{DIARY}: 90 of 100 actions have no key" in capsys.readouterr().err
    long = action_help(playing_of(diary(space="wide")))
    assert len(long) <= 200 and long.startswith("left/a right/d: number 0 to -1 or 1; down/s up/w: number 1 ")
    assert long.endswith("; ...; no key: 0; 1 of 8 numbers have no keys")


def test_a_world_in_which_no_key_does_anything_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "open_display", lambda: pytest.fail("a window was opened"))
    task = diary(space="single")
    for attempt in (lambda: play(task, 1), lambda: play_dream(task, 1)):
        with pytest.raises(UserError, match=r"cannot be played by hand: none of the keys .* is Discrete\(1\)") as told:
            attempt()
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("space", ["discrete", "box"])
def test_the_dream_of_a_gymnasium_world_is_played_beside_it(
    space: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    task = diary(space=space, length=40)
    memory = MDNRNN(4, task.action_size, 8, 2, True, True)
    agent = untrained_agent(task, make_vision("conv-vae", 4), memory)
    agent.starts = torch.randn(5, 2, 4).half()
    with torch.no_grad():
        assert memory.end_head is not None
        memory.end_head.bias.fill_(-20.0)
    agent.save(tmp_path)
    done: list[tuple[int, int, np.ndarray]] = []
    help_texts: list[str] = []

    def look(viewer: Viewer) -> None:
        assert isinstance(viewer, DreamViewer)
        both, picture = viewer.side_by_side, viewer.side_by_side.real_picture()
        assert picture is not None
        done.append((both.step_number, int(picture[0, 0, 2]) // 4, both.dream_frame()))
        help_texts.append(viewer.help)

    right, enter, space_bar = pygame.K_RIGHT, pygame.K_RETURN, pygame.K_SPACE
    moves = [look, pressing(right), look, releasing(right), look, *held(enter), look, *held(space_bar), look]
    show = window.show
    monkeypatch.setattr(window, "show", lambda make, tick: show(make, script(*moves)))
    assert cli.main(["dream", "play", DIARY, "--env.space", space, "--env.length", "40", "--agent", str(tmp_path)]) == 0
    playing = playing_of(task)
    key, nothing = (action_number(playing.key_action(frozenset(one))) for one in ({"right"}, set()))
    assert [step for step, _, _ in done] == [0, 2, 4, 2, 5]
    assert (done[1][1], done[2][1]) == (key, nothing) and key != nothing
    assert (done[1][2] != done[0][2]).any(), "the dream went on, too"
    assert help_texts[0].startswith(action_help(playing)) and "+ - temperature" in help_texts[0]
    assert help_texts[-1].startswith("the agent plays: ")
