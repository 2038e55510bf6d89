"""Packing bins by hand without a window: numbers, clicks, the agent and best fit, and what is kept."""

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from worldmodels.agent import Agent
from worldmodels.core.errors import UserError
from worldmodels.core.seeds import episode_seeds
from worldmodels.data.episodes import EpisodeStore
from worldmodels.evaluation import evaluate
from worldmodels.execution.environments import make_envs
from worldmodels.execution.executor import LocalExecutor
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.play.choices import ChoiceViewer, settled, viewer_of
from worldmodels.play.world import WorldViewer
from worldmodels.render.stock import stock_env
from worldmodels.tasks import Task, get_task
from worldmodels.tasks.bin_packing.board import BinsBoard
from worldmodels.tasks.bin_packing.task import BinPacking
from worldmodels.vision.conv_vae import ConvVAE

BEAT = 6
"""Ticks per choice of an automatic player: 30 and 5 in a second."""
BINS = get_task("bin-packing")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> int:
    """Episodes of so many items."""
    monkeypatch.setattr(BinPacking, "max_steps", 40)
    return 40


@pytest.fixture
def viewer() -> Iterator[ChoiceViewer]:
    with closing(ChoiceViewer(BINS, 1)) as made:
        yield made


def press(viewer: ChoiceViewer, *keys: str) -> None:
    for key in keys:
        viewer.press(key)


def wait(viewer: ChoiceViewer, ticks: int = 1) -> None:
    for _ in range(ticks):
        viewer.advance()


def middle(viewer: ChoiceViewer, level: int) -> tuple[int, int]:
    """Where a level is drawn."""
    columns = [across for across in range(viewer.board.size[0]) if viewer.board.choice_at((across, 300)) == level]
    return (columns[0] + columns[-1]) // 2, 300


def fullest(viewer: ChoiceViewer) -> int:
    return int(np.flatnonzero(viewer.action_mask).max())


def message(viewer: ChoiceViewer) -> str:
    return viewer.scene().message


def best_fit_score(task: Task, seed: int) -> float:
    world, rule = task.rule("best-fit")
    executor = LocalExecutor()
    (score,) = evaluate(executor, world, rule, "native", [episode_seeds("play", seed, 1, 0)[0]], 1).returns.tolist()
    executor.close()
    return float(score)


def saved_agent(folder: Path) -> str:
    """An untrained agent whose biases like full bins: under the mask that is best fit."""
    torch.manual_seed(0)
    controller = torch.zeros(30 * 13)
    controller[:30] = torch.linspace(-1, 1, 30)
    Agent(BINS, ConvVAE(4), MDNRNN(4, 30, 8, 2, reward=True), controller, inputs=("z", "h")).save(folder)
    return str(folder)


def test_a_world_with_a_board_is_played_on_it_and_others_with_held_keys() -> None:
    for name, kind in (("bin-packing", ChoiceViewer), ("car-racing", WorldViewer)):
        with closing(viewer_of(get_task(name), 1)) as viewer:
            assert isinstance(viewer, kind)
    with pytest.raises(UserError, match="car-racing has no board to choose on"):
        ChoiceViewer(get_task("car-racing"), 1)


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
    with closing(ChoiceViewer(get_task(name), 7)) as viewer:
        for _ in range(short):
            assert viewer.score == viewer.rule_score
            level = str(fullest(viewer))
            press(viewer, *level)
            if not settled(level, len(viewer.action_mask)):
                press(viewer, "enter")
            wait(viewer)
        assert viewer.scores == [best_fit_score(get_task(name), 7)]


def test_a_click_on_a_column_chooses_its_level_and_best_fit_packs_the_same_items_beside(short: int) -> None:
    with closing(ChoiceViewer(BINS, 7)) as viewer:
        for step in range(short):
            assert viewer.step == step
            viewer.click(middle(viewer, 0))
            wait(viewer)
        assert viewer.step == short and viewer.over
    env = stock_env(BINS)
    env.reset(seed=episode_seeds("play", 7, 1, 0)[0])
    assert viewer.score == sum(float(env.step(0)[1]) for _ in range(short))
    assert viewer.rule_score == best_fit_score(BINS, 7) > viewer.score


def test_a_click_beside_the_columns_chooses_nothing(viewer: ChoiceViewer) -> None:
    viewer.click((5, 300))
    assert viewer.step == 0


def test_the_pointer_and_what_is_typed_say_which_choice_is_thought_of(viewer: ChoiceViewer) -> None:
    plain = viewer.picture()
    viewer.point(middle(viewer, 17))
    assert viewer.pointed == 17 and (viewer.picture() != plain).any()
    press(viewer, "2")
    assert viewer.pointed == 2
    press(viewer, "backspace")
    assert viewer.pointed == 17
    viewer.point((5, 300))
    assert viewer.pointed is None and (viewer.picture() == plain).all()


def test_what_is_not_allowed_is_said_and_costs_nothing(viewer: ChoiceViewer) -> None:
    said = []
    for act in (
        lambda: press(viewer, "5"),
        lambda: viewer.click(middle(viewer, 29)),
        lambda: press(viewer, "1"),
        lambda: press(viewer, "backspace"),
    ):
        act()
        wait(viewer)
        assert (viewer.step, viewer.score, viewer.over) == (0, 0.0, False)
        said.append(message(viewer))
    assert said[0].startswith("no open bin has level 5") and "does not fit into level 29" in said[1]
    assert said[2].startswith("1_") and said[3] == "your turn"
    with closing(ChoiceViewer(get_task("bin-packing-9-linear-waste"), 1)) as small:
        press(small, "9")
        assert message(small) == "expected a number from 0 to 8, got 9"


def test_enter_after_a_number_that_needed_none_does_not_lose_the_episode(viewer: ChoiceViewer) -> None:
    seen = []
    for keys in (("0", "enter"), ("enter",), ("0",), ("n",)):
        press(viewer, *keys)
        wait(viewer)
        seen.append((viewer.seed, viewer.step))
    first, second, third = (episode_seeds("play", 1, 1, episode)[0] for episode in range(3))
    assert seen == [(first, 1), (second, 0), (second, 1), (third, 0)]


def test_after_the_end_numbers_do_nothing_and_enter_starts_the_next_episode(short: int) -> None:
    with closing(ChoiceViewer(BINS, 7)) as viewer:
        for _ in range(short):
            viewer.click(middle(viewer, 0))
        banner = viewer.scene().banner
        assert banner is not None and banner.startswith(f"finished with {viewer.score:.0f}, best fit with")
        press(viewer, "1")
        assert viewer.typed == "" and viewer.scene().banner == banner
        press(viewer, "enter")
        assert (viewer.step, viewer.over, viewer.scene().banner) == (0, False, None)


def test_best_fit_chooses_at_the_speed_of_the_world_until_it_is_paused_or_a_person_chooses(
    viewer: ChoiceViewer,
) -> None:
    seen = []
    for key, ticks in (("b", 3 * BEAT), ("p", 2 * BEAT), ("p", BEAT), ("0", 2 * BEAT)):
        press(viewer, key)
        wait(viewer, ticks)
        seen.append((viewer.step, viewer.player, viewer.score == viewer.rule_score))
    assert seen == [(3, "best fit", True), (3, "best fit", True), (4, "best fit", True), (5, "you", False)]


def test_the_agent_takes_over_on_a_and_gives_back(tmp_path: Path) -> None:
    seen = []
    with closing(ChoiceViewer(BINS, 1, agent=saved_agent(tmp_path))) as viewer:
        for keys, ticks in (("a", 30 * BEAT), ("a", BEAT + 1), ("apa", 1)):
            press(viewer, *keys)
            wait(viewer, ticks)
            seen.append((viewer.step, viewer.player, viewer.score == viewer.rule_score))
            assert not viewer.paused
        press(viewer, "0")
    assert seen == [(30, "agent", True), (30, "you", True), (30, "you", True)]


def test_without_an_agent_the_viewer_says_so_and_the_person_goes_on() -> None:
    with closing(ChoiceViewer(BINS, 1, agent="/nowhere")) as viewer:
        press(viewer, "a")
        assert message(viewer).startswith("no agent called '/nowhere'") and (viewer.step, viewer.player) == (0, "you")
        press(viewer, "0")
        assert (viewer.step, viewer.player, message(viewer)) == (1, "you", "your turn")


def test_a_viewer_that_loses_the_focus_pauses_the_automatic_player_alone(viewer: ChoiceViewer) -> None:
    viewer.lose_focus()
    assert not viewer.paused
    press(viewer, "b")
    viewer.lose_focus()
    assert viewer.paused and viewer.scene().banner == "paused: p to go on"


@pytest.mark.parametrize("name", ["bin-packing", "bin-packing-9-perfect-packing"])
def test_a_finished_episode_is_kept_as_it_was_played(name: str, tmp_path: Path, short: int) -> None:
    task = get_task(name)
    with closing(ChoiceViewer(task, 3, tmp_path)) as viewer:
        for _ in range(short):
            viewer.click(middle(viewer, fullest(viewer)))
    (episode,) = EpisodeStore(tmp_path).shards()[0].episodes()
    assert len(episode.actions) == short and not episode.terminated and viewer.scores == [episode.rewards.sum()]
    env = make_envs(task, 1, "native")
    frames, _ = env.reset(seed=[episode.seed])
    for step, action in enumerate(episode.actions):
        np.testing.assert_array_equal(episode.frames[step], frames[0])
        assert action.sum() == 1 and action.shape == (task.action_size,)
        frames, rewards, *_ = env.step(action.argmax()[None])
        assert rewards[0] == episode.rewards[step]
    np.testing.assert_array_equal(episode.frames[-1], frames[0])


def test_the_scene_says_scores_step_and_bins(viewer: ChoiceViewer) -> None:
    press(viewer, "b")
    wait(viewer, 4 * BEAT)
    scene = viewer.scene()
    readings = dict(scene.readings)
    assert list(readings) == ["score", "best fit", "step", "open bins", "full bins", "player"]
    assert readings["score"] == readings["best fit"] == f"{viewer.score:.0f}"
    taken = "best fit chooses; a number or a click takes over"
    assert (readings["step"], readings["player"], scene.message) == ("4 / 1000", "best fit", taken)
    assert "0 to 29 or a click choose (after 1 or 2 a second digit or enter)" in scene.help


def test_viewers_need_no_pygame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    with closing(ChoiceViewer(BINS, 1)) as viewer:
        press(viewer, "0")
        assert viewer.picture().shape == (*viewer.size[::-1], 3)


def columns_of(board: BinsBoard, chosen: np.ndarray) -> set[int | None]:
    """The levels in whose columns pixels (H, W) bool are chosen."""
    return {board.choice_at((int(across), 100)) for across in np.flatnonzero(chosen.any(axis=0))}


@pytest.mark.parametrize("capacity", [9, 30])
def test_the_board_shows_which_bins_take_the_item_and_how_many_there_are(capacity: int) -> None:
    board = BinsBoard(capacity)
    state = np.zeros(capacity + 1, np.int64)
    state[[2, 5, capacity - 1]], state[-1] = (1, 3, 200), 3
    mask = (np.arange(capacity) + 3 <= capacity) & (state[:-1] > 0)
    mask[0] = True
    plain = np.array(board.draw(state, mask, None))
    assert plain.shape == (board.size[1], board.size[0], 3)
    where = np.array([-1 if (at := board.choice_at((across, 100))) is None else at for across in range(1200)])
    blue = (plain == (0x4A, 0xA8, 0xFF)).all(axis=-1)
    amounts = {level: blue[:, where == level].sum() for level in range(capacity)}
    assert {level for level, amount in amounts.items() if amount} == set(np.flatnonzero(mask).tolist())
    assert amounts[5] > amounts[2] > amounts[0]
    changed = (np.array(board.draw(state, mask, 5)) != plain).any(axis=-1)
    assert columns_of(board, changed) == {5}
    assert board.choice_at((5, 100)) is None and board.choice_at((600, 600)) is None


def test_the_stock_world_of_every_variant_shows_what_its_agents_see() -> None:
    for name in ("bin-packing", "bin-packing-9-linear-waste"):
        task = get_task(name)
        env, own = stock_env(task), make_envs(task, 1, "native")
        first, _ = env.reset(seed=5)
        np.testing.assert_array_equal(first[None], own.reset(seed=[5])[0])
        assert env.action_space == task.action_space


def test_a_world_with_a_board_but_without_rules_is_played_with_held_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(BINS), "rules", ())
    with pytest.raises(UserError, match="bin-packing has no rule to be played against; it is played with held keys"):
        ChoiceViewer(BINS, 1)
    with closing(viewer_of(BINS, 1)) as viewer:
        viewer.advance()
        assert isinstance(viewer, WorldViewer) and viewer.step == 1 and viewer.picture().any()
