"""The loop in which policies meet vector environments: order, ends, limits and patience."""

import numpy as np
import pytest
import torch

from worldmodels.agent import Agent, untrained_agent
from worldmodels.core import interrupt
from worldmodels.data.collect import Recorder
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.rollouts import rollout
from worldmodels.tasks import Task
from worldmodels.tasks.base import Observations
from worldmodels.vision.conv_vae import ConvVAE
from worlds import Diarist, Scripted, ScriptedEnv, ends_by_itself, length_of, reward_at

TASK = Scripted()
SEEDS = [5, 6, 7, 12, 13, 20]


def test_returns_lengths_and_ends_are_those_of_the_episodes() -> None:
    played = rollout(TASK, ScriptedEnv(6), Diarist(), SEEDS, max_steps=10)
    assert played.lengths.tolist() == [length_of(seed) for seed in SEEDS]
    assert played.terminated.tolist() == [ends_by_itself(seed) for seed in SEEDS]
    wanted = [sum(reward_at(seed, step) for step in range(length_of(seed))) for seed in SEEDS]
    assert played.returns.tolist() == wanted
    assert played.steps == sum(length_of(seed) for seed in SEEDS)


def test_a_limit_of_steps_ends_rows_without_calling_them_terminated() -> None:
    played = rollout(TASK, ScriptedEnv(6), Diarist(), SEEDS, max_steps=3)
    assert played.lengths.tolist() == [min(3, length_of(seed)) for seed in SEEDS]
    assert not played.terminated[[length_of(seed) > 3 for seed in SEEDS]].any()


def test_the_loop_stops_as_soon_as_every_row_is_done() -> None:
    """The scripted world refuses a step in which no row is running."""
    rollout(TASK, ScriptedEnv(6), Diarist(), SEEDS, max_steps=10_000)


class Watcher:
    """A policy and an observer that note who was asked and what was reported."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.reported: list[tuple[int, int, int]] = []

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        assert [SEEDS[row] for row in rows] == observations.raw[:, 0].tolist()
        self.asked.append(rows.tolist())
        return Diarist().act(observations, rows)

    def start(self, observations: Observations) -> None:
        assert observations.raw[:, 1].tolist() == [0] * len(SEEDS)

    def step(
        self, rows: np.ndarray, actions: np.ndarray, rewards: np.ndarray, ended: np.ndarray, after: Observations
    ) -> None:
        assert rows.tolist() == self.asked[-1] and len(after) == len(rows) == len(actions) == len(ended)
        for row, action, reward, frame in zip(rows, actions, rewards, after.raw, strict=True):
            assert reward == reward_at(SEEDS[row], frame[1] - 1) and action[0] == (frame[1] - 1) / 64
            self.reported.append((SEEDS[row], int(frame[1]), int(frame[2])))


def test_ended_rows_are_neither_asked_nor_reported() -> None:
    watcher = Watcher()
    rollout(TASK, ScriptedEnv(6), watcher, SEEDS, 10, observer=watcher)
    for step, rows in enumerate(watcher.asked):
        assert rows == [row for row, seed in enumerate(SEEDS) if length_of(seed) > step]
    wanted = {(seed, step + 1, step) for seed in SEEDS for step in range(length_of(seed))}
    assert set(watcher.reported) == wanted and len(watcher.reported) == len(wanted)


class Dull(ScriptedEnv):
    """Pays 1 at the steps ``pays`` and -0.1 at others; never ends."""

    def __init__(self, pays: set[int]) -> None:
        super().__init__(1)
        self._pays, self._count = pays, 0

    def step(self, actions: np.ndarray):  # type: ignore[no-untyped-def]
        self._count += 1
        reward = 1.0 if self._count in self._pays else -0.1
        no = np.zeros(1, bool)
        return self._seen, np.array([reward]), no, no, {}


@pytest.mark.parametrize(("pays", "length"), [(set(), 5), ({1}, 6), ({3}, 8), ({3, 7}, 12), ({3, 9}, 8)])
def test_patience_counts_the_steps_since_the_last_positive_reward(pays: set[int], length: int) -> None:
    played = rollout(TASK, Dull(pays), Diarist(), [1], max_steps=30, patience=5)
    assert played.lengths.tolist() == [length] and not played.terminated.any()


def test_rows_that_patience_ended_are_not_simulated_any_more() -> None:
    """All rewards are positive but those of seed 0, whose first one is nothing."""
    env = ScriptedEnv(3)
    played = rollout(TASK, env, Still(), [0, 20, 13], 10, patience=1)
    assert played.lengths.tolist() == [1, length_of(20), length_of(13)]
    assert env.simulated == played.steps


class Still:
    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        return np.zeros((len(rows), 2), np.float32)


def test_a_request_to_stop_ends_the_loop_between_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "_received", 2)
    with pytest.raises(interrupt.Interrupted) as stop:
        rollout(TASK, ScriptedEnv(6), Diarist(), SEEDS, 10)
    assert stop.value.exit_code == 130


# --- frames --------------------------------------------------------------------------------------------------


class Counted(Scripted):
    """Notes of how many observations frames are made at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.made_frames: list[int] = []

    def frames(self, observations: np.ndarray) -> np.ndarray:
        self.made_frames.append(len(observations))
        return super().frames(observations)

    def env_action(self, control: np.ndarray) -> np.ndarray:
        """Numbers that the world can show."""
        return np.abs(super().env_action(control))


def running(step: int) -> int:
    """Rows that act at a step."""
    return sum(length_of(seed) > step for seed in SEEDS)


LONGEST = max(length_of(seed) for seed in SEEDS)


def seeing_agent(task: Task) -> Agent:
    torch.manual_seed(0)
    agent = untrained_agent(task, ConvVAE(4), MDNRNN(4, 2, 8, 2))
    agent.controller = torch.randn(len(agent.controller))
    return agent


def test_frames_are_made_once_for_the_agent_that_acts_and_the_recorder_that_keeps_them() -> None:
    task = Counted()
    agent, recorder = seeing_agent(task), Recorder(task, len(SEEDS), 10)
    played = rollout(task, ScriptedEnv(6), agent.policy(6), SEEDS, 10, observer=recorder)
    assert task.made_frames == [6, *(running(step) for step in range(LONGEST))]
    assert sum(task.made_frames) == played.steps + len(SEEDS), "one frame for every observation"
    for episode in recorder.episodes(SEEDS, "fast"):
        assert episode.frames[:, 0, 0, 1].tolist() == list(range(length_of(episode.seed) + 1))


def test_frames_that_nobody_looks_at_are_not_made() -> None:
    task = Counted()
    rollout(task, ScriptedEnv(6), Diarist(), SEEDS, 10)
    assert task.made_frames == []
    rollout(task, ScriptedEnv(6), seeing_agent(task).policy(6), SEEDS, 10)
    assert task.made_frames == [running(step) for step in range(LONGEST)], "those after the end need no frame"


def test_observations_of_some_rows_keep_the_frames_that_are_made() -> None:
    task = Counted()
    raw = np.arange(12, dtype=np.uint8).reshape(4, 3)
    observations = Observations(task, raw)
    before = observations.of(np.array([2, 0]))
    assert len(before) == 2 and before.raw.tolist() == raw[[2, 0]].tolist()
    frames = observations.frames
    for rows in (np.array([3, 1]), np.array([True, False, False, True])):
        some = observations.of(rows)
        assert np.array_equal(some.frames, frames[rows]) and np.array_equal(some.raw, raw[rows])
    assert task.made_frames == [4]
    assert np.array_equal(before.frames, frames[[2, 0]]) and task.made_frames == [4, 2]
