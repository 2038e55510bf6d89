"""Any Gymnasium environment as a task: what is found out about it, its actions, frames, keys, presets and faults."""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from gym_worlds import LENGTH, SPACES, action_number
from worldmodels.core.errors import UserError
from worldmodels.data.collect import record_episodes
from worldmodels.data.episodes import Episode
from worldmodels.execution.environments import make_envs
from worldmodels.execution.executor import LocalExecutor
from worldmodels.run.presets import preset, preset_names
from worldmodels.tasks import get_task, is_task, same_task
from worldmodels.tasks.base import Observations, Task, playing_of
from worldmodels.tasks.gym.actions import Actions
from worldmodels.tasks.gym.facts import read_facts
from worldmodels.tasks.gym.keys import held_choice, idle_of, keys_of

DIARY, FAULTY = "gym:gym_worlds:toy/Diary-v0", "gym:gym_worlds:toy/Faulty-v0"
PICTURES = ("colour", "grey", "channel", "entry", "rendered")
ROWS = np.arange(3)


def diary(**options: Any) -> Task:
    return get_task(DIARY, options)


def recorded(task: Task, seeds: Sequence[int], steps: int = 50) -> list[Episode]:
    executor = LocalExecutor()
    try:
        return record_episodes(executor, task, "gymnasium", task.exploration, seeds, steps)
    finally:
        executor.close()


@pytest.mark.parametrize("space", SPACES)
def test_actions_survive_the_way_from_controls_to_the_environment_and_to_m(space: str) -> None:
    actions, stream = Actions.of(SPACES[space]), np.random.default_rng(1)
    controls = stream.uniform(-1, 1, (200, actions.size)).astype(np.float32)
    taken = actions.from_control(controls)
    assert all(SPACES[space].contains(one if one.ndim else one[()]) for one in taken)
    encoded = actions.encode(taken)
    assert encoded.shape == (200, actions.size) and encoded.dtype == np.float32 and np.abs(encoded).max() <= 1
    # What M gets, given back as controls, is the same action: nothing is lost on the way.
    again = actions.from_control(encoded)
    assert np.allclose(again, taken, atol=1e-5)
    on_device = actions.encode_control(torch.from_numpy(controls)).numpy()
    assert np.allclose(on_device, encoded, atol=1e-5)
    assert len(actions.labels) == len(actions.ranges) == actions.size


@pytest.mark.parametrize("space", SPACES)
def test_random_actions_are_in_the_space_and_reach_all_of_it(space: str) -> None:
    actions, stream = Actions.of(SPACES[space]), np.random.default_rng(2)
    drawn = np.stack([actions.draw(stream) for _ in range(300)])
    assert all(SPACES[space].contains(one if one.ndim else one[()]) for one in drawn)
    encoded = actions.encode(drawn)
    assert (encoded.max(axis=0) > 0.9).all() and (encoded.min(axis=0) < 0.1).all()
    biased = actions.biased_draw(stream)
    assert all(SPACES[space].contains(one if one.ndim else one[()]) for one in (biased() for _ in range(20)))


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("picture", ["colour", "rendered"])
def test_recorded_frames_actions_and_rewards_belong_together(space: str, picture: str) -> None:
    task = diary(space=space, picture=picture)
    seeds = [4, 7]
    for seed, episode in zip(seeds, recorded(task, seeds), strict=True):
        assert len(episode.actions) == LENGTH and episode.terminated == (seed % 2 == 0)
        numbers = [action_number(task.env_action(one[None])[0]) for one in episode.actions]
        assert episode.frames[:, 0, 0, 0].tolist() == [seed] * (LENGTH + 1)
        assert episode.frames[:, 0, 0, 1].tolist() == list(range(LENGTH + 1))
        assert episode.frames[1:, 0, 0, 2].tolist() == [4 * number for number in numbers]
        assert episode.rewards.tolist() == [100 * (step + 1) + number for step, number in enumerate(numbers)]


@pytest.mark.parametrize("picture", PICTURES)
def test_pictures_are_found_wherever_they_are(picture: str) -> None:
    task = diary(picture=picture)
    (episode,) = recorded(task, [4], 3)
    assert task.observation_shape == (20, 20, 3)
    assert episode.frames.shape == (4, 64, 64, 3) and episode.frames[:, 0, 0, 1].tolist() == [0, 1, 2, 3]
    grey = picture in ("grey", "channel")
    assert (episode.frames[..., 0] == episode.frames[..., 1]).all() == grey


def test_what_is_found_follows_from_the_environment_alone() -> None:
    task = diary(space="two")
    assert (task.name, task.title, task.max_steps) == (DIARY, "toy Diary", 50)
    assert task.facts["episode_steps"] == LENGTH and task.playing.frames_per_second == 12
    # The root mean square of 100 times the step plus a small number, of 10 episodes of 6 steps.
    assert task.reward_scale == pytest.approx(390, abs=10)
    from worldmodels.tasks.gym import found

    found._known.clear()
    assert diary(space="two").facts == task.facts


def test_a_limit_is_that_of_the_registration_or_of_the_option_or_a_usual_one() -> None:
    assert get_task("gym:gym_worlds:toy/Endless-v0").max_steps == 1000
    assert diary(max_episode_steps=3).max_steps == 3
    assert [len(episode.actions) for episode in recorded(diary(max_episode_steps=3), [1])] == [3]


def test_a_task_is_rebuilt_from_its_facts_without_trying_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    task = diary(space="multi-discrete")
    monkeypatch.setattr("worldmodels.tasks.gym.task.facts_of", None)
    again = get_task(DIARY, facts=json.loads(json.dumps(dict(task.facts))))
    assert again.facts == task.facts and again.action_space == task.action_space and again.options == task.options
    assert again.identity == task.identity != DIARY


SPOILT: dict[str, dict[str, Any]] = {
    "no table": {"action": 3},
    "a kind": {"picture": "video"},
    "pixels": {"shape": [8000, 8000, 3]},
    "no shape": {"shape": [3]},
    "negative": {"max_steps": -1},
    "not finite": {"reward_scale": float("nan")},
    "unknown": {"colour": "red"},
    "other world": {"env_id": "CartPole-v1"},
}


@pytest.mark.parametrize("change", SPOILT)
def test_facts_of_a_damaged_or_hostile_file_are_refused(change: str) -> None:
    facts = {**diary().facts, **SPOILT[change]}
    with pytest.raises(UserError):
        get_task(DIARY, facts=facts)


@pytest.mark.parametrize("facts", [[1], "text", {"options": 3}])
def test_facts_that_are_no_table_are_refused(facts: Any) -> None:
    with pytest.raises(UserError, match="as a table"):
        get_task(DIARY, facts=facts)


@pytest.mark.parametrize(
    "change",
    [
        {"sizes": [100_000]}, {"sizes": []}, {"start": []}, {"idle": 9}, {"dtype": "object"}, {"kind": "box"},
        {"kind": "box", "sizes": [1], "start": [], "low": [1.0], "high": [0.0], "dtype": "float32"},
    ],
)  # fmt: skip
def test_actions_of_a_damaged_or_hostile_file_are_refused(change: dict[str, Any]) -> None:
    facts = diary().facts
    with pytest.raises(UserError):
        read_facts({**facts, "action": {**facts["action"], **change}}, DIARY)


FAULTS = {
    "reset": ("failed when reset", "RuntimeError", "the battery is empty"),
    "dies": ("was killed by SIGKILL",),
    "first-step": ("failed when stepped (step 1 of an episode)", "a wheel came off"),
    "middle": ("failed when stepped (step 4 of an episode)", "a wheel came off"),
    "nan": ("the reward nan",),
    "grows": ("expected a picture of 20x20x3 uint8", "21x20x3"),
    "lies": ("expected a picture of 20x20x3 uint8", "float64"),
    "no-picture": ("shows no picture", "Discrete"),
    "two-pictures": ("2 pictures (left, right)",),
    "tuple": ("its action space is Tuple", "expected Discrete, MultiDiscrete"),
    "dict": ("its action space is Dict",),
    "infinite": ("bounds of its actions are infinite", "RescaleAction"),
    "huge": ("100,000 choices",),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_environment_with_a_fault_is_refused_in_one_line(fault: str) -> None:
    with pytest.raises(UserError) as refusal:
        get_task(FAULTY, {"fault": fault})
    text = str(refusal.value)
    assert text.startswith(f"cannot use {FAULTY}: ") and "\n" not in text
    for word in FAULTS[fault]:
        assert word in text


def test_an_environment_that_needs_a_render_mode_gets_one() -> None:
    task = get_task(FAULTY, {"fault": "needs-mode"})
    assert task.facts["render_mode"] == "rgb_array" and len(recorded(task, [1])[0].actions) == LENGTH


def test_an_environment_that_fails_later_ends_the_work_in_one_line() -> None:
    task = get_task(FAULTY, {"fault": "later"})
    with pytest.raises(UserError, match="out of petrol"):
        recorded(task, [123_456])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gym:CartPoll-v1", ("unknown Gymnasium environment 'CartPoll-v1'", "did you mean gym:CartPole-v1")),
        ("gym:ALE/Pongg-v5", ("did you mean gym:ALE/Pong-v5",)),
        ("gym:gym_worlds:toy/Dairy-v0", ("did you mean gym:gym_worlds:toy/Diary-v0",)),
        ("gym:no_such_module:Thing-v0", ("needs no_such_module, not installed here", "install the package")),
        ("gym:Nothing like it", ("gym:MODULE:ID",)),
        ("gym:", ("expected gym:ID",)),
        ("gym:a b:c", ("expected gym:ID",)),
    ],
)
def test_an_unknown_id_is_named_with_those_that_are_close(name: str, words: Sequence[str]) -> None:
    with pytest.raises(UserError) as refusal:
        get_task(name)
    assert "\n" not in str(refusal.value)
    for word in words:
        assert word in str(refusal.value)


def test_a_wrong_option_is_answered_with_what_the_environment_said() -> None:
    with pytest.raises(UserError, match=r"with picture='oil': ValueError: there is no picture 'oil'"):
        diary(picture="oil")
    with pytest.raises(UserError, match="its environment has no option 'colour'"):
        diary(colour=1)
    with pytest.raises(UserError, match="car-racing has no option"):
        get_task("car-racing", {"colour": 1})


def test_names_with_and_without_module_and_version_are_the_same_world() -> None:
    assert is_task("gym:CartPole-v1") and not is_task("CartPole-v1")
    assert same_task("gym:ale_py:ALE/Pong-v5", "gym:ALE/Pong-v5") and same_task("gym:CartPole", "gym:CartPole-v1")
    assert not same_task("gym:CartPole-v0", "gym:CartPole-v1") and not same_task("car-racing", "gym:CarRacing-v3")


def test_arrow_keys_and_digits_choose_actions() -> None:
    names = ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"]
    given = {("e",): 0, (" ",): 1, ("d",): 2, ("a",): 3, ("d", " "): 4, (97, 32): 5}
    keys = keys_of(given, names, 6)
    press = lambda *held: held_choice(keys, frozenset(held), 0)  # noqa: E731
    assert [press(), press("right"), press("left"), press("f"), press("right", "f"), press("left", "f")] == [
        0,
        2,
        3,
        1,
        4,
        5,
    ]
    assert press("up") == 0 and press("4") == 4
    grid = ["left", "right", "forward", "pickup", "drop", "toggle", "done"]
    keys = keys_of(None, grid, 7)
    assert held_choice(keys, frozenset({"up"}), 6) == 2 and held_choice(keys, frozenset({"5"}), 6) == 5
    assert (idle_of(grid, 7), idle_of(names, 6), idle_of([], 3), idle_of([], 2)) == (6, 0, 1, 0)


@pytest.mark.parametrize("space", SPACES)
def test_held_keys_make_actions_of_the_space(space: str) -> None:
    task = diary(space=space)
    playing = playing_of(task)
    made = set()
    for held in ((), ("left",), ("right",), ("up",), ("down",), ("up", "left")):
        action = playing.key_action(frozenset(held))
        assert task.action_space.contains(action if action.ndim else action[()]), (held, action)
        made.add(action.tobytes())
        assert task.memory_action(action[None]).shape == (1, task.action_size)
    assert len(made) >= 2
    stick = playing.stick_action(1.0, 0.0, 0.0)
    assert task.action_space.contains(stick if stick.ndim else stick[()])


def test_exploration_holds_actions_and_does_not_depend_on_the_other_rows() -> None:
    task = diary(space="box", length=49)
    seen: Any = Observations(task, np.zeros((3, 20, 20, 3), np.uint8))
    together, alone = task.exploration([1, 2, 3]), task.exploration([2])
    for _ in range(40):
        row = together.act(seen, ROWS)[1]
        assert (alone.act(seen.of(ROWS[:1]), ROWS[:1])[0] == row).all()
    perturbed = task.perturbed(task.random_policy([1, 2, 3]), [1, 2, 3])
    assert all(task.action_space.contains(one) for _ in range(50) for one in perturbed.act(seen, ROWS))


def test_presets_follow_from_the_length_of_episodes() -> None:
    assert preset_names(DIARY) == ["standard", "quick"]
    short, long = preset("quick", DIARY).collect, preset("quick", DIARY, {"length": 10**6, "max_episode_steps": 27_000})
    assert short.episodes == 2048 and short.steps == 0
    assert long.collect.steps == 1000 and long.collect.episodes * 1000 == 16_000
    assert long.collect.num_envs * long.collect.steps <= 32_768
    assert long.evaluate.episodes == 100 and long.evolution.phases["real"].max_steps == 500
    assert long.controller.inputs == ("z", "h") and long.task == DIARY and long.world["max_steps"] == 27_000


RELOAD = """
import sys
from worldmodels.agent import load_agent
agent = load_agent(sys.argv[1])
print(agent.task.identity, agent.task.max_steps, agent.task.control_size, agent.digest())
"""


def test_an_agent_brings_its_world_along_into_a_new_process(tmp_path: Any) -> None:
    from worldmodels.agent import untrained_agent
    from worldmodels.memory.mdnrnn import MDNRNN
    from worldmodels.vision.base import make_vision

    task = diary(space="multi-binary", length=9)
    agent = untrained_agent(task, make_vision("conv-vae", 4), MDNRNN(4, task.action_size, 8, 2, True, True, 0))
    agent.save(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", RELOAD, str(tmp_path)], capture_output=True, text=True, timeout=600, check=True
    )
    # The weights of V and M are rounded when they are saved, once.
    from worldmodels.agent import load_agent

    assert done.stdout.split()[-3:] == ["50", "3", load_agent(tmp_path).digest()]
    assert done.stdout.startswith(f'{DIARY} {{"length": 9, "space": "multi-binary"}}')


REAL = {
    "gym:ALE/Pong-v5": ((210, 160, 3), 6, 27_000, "observation"),
    "gym:MiniGrid-Empty-5x5-v0": ((160, 160, 3), 7, 100, "render"),
    "gym:CartPole-v1": ((400, 600, 3), 1, 500, "render"),
}


@pytest.mark.parametrize("name", REAL)
def test_a_real_world_is_recorded_twice_with_the_same_result(name: str) -> None:
    task = get_task(name)
    shape, controls, steps, picture = REAL[name]
    assert task.observation_shape == shape and task.control_size == controls
    assert task.max_steps == steps and task.facts["picture"] == picture
    (first,), (second,) = recorded(task, [3], 12), recorded(task, [3], 12)
    assert (first.frames == second.frames).all() and (first.actions == second.actions).all()
    assert (first.rewards == second.rewards).all() and first.frames.std() > 1
    if name == "gym:CartPole-v1":
        assert (first.rewards == 1).all() and set(first.actions.ravel().tolist()) <= {-1.0, 1.0}


def test_frames_of_a_real_world_are_those_that_follow_the_actions() -> None:
    import gymnasium

    task = get_task("gym:CartPole-v1")
    (episode,) = recorded(task, [5], 8)
    env = gymnasium.make("CartPole-v1", render_mode="rgb_array")
    env.reset(seed=5)
    pictures = [env.render()]
    for number in episode.actions[:, 0]:
        env.step(int(number > 0))
        pictures.append(env.render())
    env.close()
    assert (task.frames(np.stack(pictures)) == episode.frames).all()  # type: ignore[arg-type]


def test_people_see_what_the_environment_renders() -> None:
    from worldmodels.render.stock import stock_env

    env = stock_env(get_task("gym:ALE/Pong-v5"))
    observation, _ = env.reset(seed=1)
    assert np.asarray(env.render()).shape == (210, 160, 3) and observation.dtype == np.uint8
    env.close()
    envs = make_envs(diary(space="two"), 2, "gymnasium")
    assert envs.reset(seed=[1, 2])[0].shape == (2, 20, 20, 3)
    envs.close()
