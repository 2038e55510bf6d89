"""Nine ways in which dreams of other systems went wrong without any error, each on a world that shows it.

The world of traps 1 to 3 is deadly where its frame says so and the action does not avoid it; frames encode their step.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import VectorEnv

from worldmodels.agent import Agent
from worldmodels.data.collect import record_episodes
from worldmodels.data.encode import dream_starts
from worldmodels.dream.config import DreamConfig
from worldmodels.dream.dreams import Dreams
from worldmodels.dream.env import DreamVectorEnv
from worldmodels.evaluation import evaluate
from worldmodels.evolution.config import EvolutionConfig, PhaseConfig
from worldmodels.evolution.dream_fitness import DreamFitness
from worldmodels.evolution.fitness import Fitness, WorldFitness
from worldmodels.evolution.phases import Evolution
from worldmodels.execution.executor import Executor, LocalExecutor
from worldmodels.memory.config import MemoryConfig
from worldmodels.memory.latents import Latents
from worldmodels.memory.mdnrnn import MDNRNN, Prediction, Targets, memory_loss
from worldmodels.memory.mixture import Mixture
from worldmodels.memory.train import SequenceSampler, train_memory
from worldmodels.run.presets import preset, resolved
from worldmodels.tasks import get_task
from worldmodels.tasks.base import Observations
from worldmodels.vision.conv_vae import ConvVAE
from worlds import Diarist, Scripted, ScriptedEnv, length_of, reward_at

LATENT = 8
CPU = torch.device("cpu")


class DeadlyEnv(ScriptedEnv):
    """An episode ends with the first action whose first number is positive, or else after its length."""

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        before = self._alive.copy()
        seen, rewards, terminated, truncated, info = super().step(actions)
        truncated |= terminated
        terminated = before & (actions[:, 0] > 0)
        self._alive &= ~terminated
        return seen, rewards, terminated, truncated & ~terminated, info


class Deadly(Scripted):
    """The scripted world in which some actions kill."""

    def _make(self, num_envs: int, backend: str) -> VectorEnv:
        return DeadlyEnv(num_envs)


class Reckless:
    """Deadly in one step of five, by chance."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._streams = [np.random.default_rng(seed) for seed in seeds]

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        drawn = [self._streams[row].choice([0.0, 0.5], p=[0.8, 0.2]) for row in rows]
        return np.stack([np.full(2, one, np.float32) for one in drawn])


@pytest.fixture(scope="module")
def deadly() -> Latents:
    """Recorded lives; z holds the step in its first number and noise in the others."""
    episodes = record_episodes(LocalExecutor(), Deadly(), "fast", Reckless, list(range(200)), 10)
    assert any(episode.terminated for episode in episodes) and not all(episode.terminated for episode in episodes)
    steps = np.concatenate([episode.frames[:, 0, 0, 1] for episode in episodes]).astype(np.float32)
    mu = torch.zeros(len(steps), LATENT)
    mu[:, 0] = torch.from_numpy(steps) / 4
    logvar = torch.zeros_like(mu)
    logvar[:, 0] = -60.0
    return Latents(
        mu.half(),
        logvar.half(),
        torch.from_numpy(np.concatenate([episode.actions for episode in episodes])),
        torch.from_numpy(np.concatenate([episode.rewards for episode in episodes])),
        torch.tensor([episode.terminated for episode in episodes], dtype=torch.uint8),
        torch.tensor([len(episode.actions) for episode in episodes]),
    )


@pytest.fixture(scope="module")
def taught(deadly: Latents, tmp_path_factory: pytest.TempPathFactory) -> MDNRNN:
    """A small M trained on them."""
    torch.manual_seed(0)
    memory = MDNRNN(LATENT, 2, 24, 3, reward=False, end=True)
    config = MemoryConfig(steps=150, batch=32, length=8, lr=1e-2)
    train_memory(memory, deadly, config, 1, CPU, tmp_path_factory.mktemp("memory"))
    return memory


def test_1_the_fatal_action_is_kept_and_blamed_for_the_death(deadly: Latents, taught: MDNRNN) -> None:
    last = deadly.lengths.cumsum(0) - 1
    dead = deadly.terminated == 1
    assert (deadly.actions[last[dead], 0] == 1.0).all(), "the world saw 0.5, and M sees twice that"
    assert int((deadly.actions[:, 0] > 0).sum()) == int(dead.sum()), "no other action is deadly"
    z, actions, targets = SequenceSampler(deadly, 512, 8, seed=2).batch(0)
    with torch.no_grad():
        end = taught(z, actions).end_logit
    assert end is not None
    there = targets.mask == 1
    assert ((end > 0) == (targets.ends == 1))[there].float().mean() > 0.98


def test_2_deaths_weigh_more_and_are_not_drowned_by_the_latents() -> None:
    def parts(latent: int, weight: float) -> dict[str, torch.Tensor]:
        zeros = torch.zeros(1, 4, latent, 3)
        mixture = Mixture(zeros - np.log(3), zeros, zeros)
        targets = Targets(torch.ones(1, 4, latent), torch.zeros(1, 4), torch.eye(4)[3:], torch.ones(1, 4))
        return memory_loss(Prediction(mixture, None, torch.zeros(1, 4)), targets, weight)[1]

    assert parts(64, 10.0)["nll"].item() == pytest.approx(parts(1, 10.0)["nll"].item(), rel=1e-5)
    assert parts(64, 10.0)["end"].item() == pytest.approx(13 / 4 * np.log(2), rel=1e-5)
    assert MemoryConfig().end_weight == 10.0, "as in the paper's code"


def test_3_m_is_trained_on_drawn_latents_and_not_on_their_means(deadly: Latents, taught: MDNRNN) -> None:
    z, actions, targets = SequenceSampler(deadly, 512, 8, seed=2).batch(0)
    assert z[..., 1:].std().item() == pytest.approx(1.0, abs=0.05)
    with torch.no_grad():
        mixture = taught(z, actions).mixture
    spread = (mixture.log_weights.exp() * (2 * mixture.log_scales).exp()).sum(-1).sqrt()
    there = targets.mask == 1
    # An M that had seen means only would be certain of zeros.
    assert spread[..., 1:][there].mean().item() == pytest.approx(1.0, abs=0.2)


def two_worlds(task: str = "take-cover", end: float = -30.0) -> Agent:
    """An agent whose M expects -3 or 3 in each of six dimensions, whatever it saw."""
    world = get_task(task)
    memory = MDNRNN(6, world.action_size, 16, 2, world.predicts_reward, end=True)
    assert memory.end_head is not None
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.zero_()
        bias = memory.mixture_head.bias.view(6, 3, 2)
        bias[:, 0] = torch.tensor([1.0, 0.0])
        bias[:, 1] = torch.tensor([-3.0, 3.0])
        bias[:, 2] = np.log(0.5)
        memory.end_head.bias.fill_(end)
    size = sum({"z": 6, "h": 16, "c": 16}[name] for name in world.inputs)
    controller = torch.zeros(world.control_size * (size + 1))
    return Agent(world, ConvVAE(6), memory, controller, starts=torch.zeros(3, 2, 6).half())


def dreamt(temperature: float) -> np.ndarray:
    """z (4000, 6) after one step."""
    dreams = Dreams(two_worlds(), temperature, dtype=torch.float32)
    dreams.reset(range(4000))
    dreams.step(torch.zeros(4000, 1))
    return dreams.z.numpy()


def test_4_every_dimension_chooses_its_own_component() -> None:
    sides = (dreamt(1.0) > 0).astype(np.float64)
    correlations = np.corrcoef(sides.T)[~np.eye(6, dtype=bool)]
    assert np.abs(correlations).max() < 0.06
    assert len(np.unique(sides, axis=0)) == 2**6


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 1.3])
def test_5_temperature_changes_the_choice_and_the_noise(temperature: float) -> None:
    z = dreamt(temperature)
    share = 1 / (1 + np.exp(1 / temperature))
    assert (z > 0).mean() == pytest.approx(share, abs=0.015)
    left = z[z < 0] if temperature < 1.2 else z[(z < 0) & (z > -6)]
    assert left.std() == pytest.approx(0.5 * np.sqrt(temperature), rel=0.05)


def test_6_dreams_begin_where_recordings_begin_or_with_what_m_remembers_there(deadly: Latents) -> None:
    agent = Agent(Scripted(), ConvVAE(LATENT), MDNRNN(LATENT, 2, 24, 3, True, True), torch.zeros(66))
    first = deadly.lengths.cumsum(0) - deadly.lengths + torch.arange(len(deadly.lengths))
    starts, states = dream_starts(agent.memory, deadly, (0,))
    assert torch.equal(starts[:, 0], deadly.mu[first]) and torch.equal(starts[:, 1], deadly.logvar[first])
    assert (states == 0).all()

    starts, states = dream_starts(agent.memory, deadly, (0, 2))
    long = deadly.lengths > 2
    assert len(starts) == len(first) + long.sum(), "an episode that ended at step 2 has nothing left to dream of"
    late = starts[len(first) :, 0], states[len(first) :].float()
    assert torch.equal(late[0], deadly.mu[first[long] + 2])
    z = torch.stack([deadly.mu[first[long] + step] for step in range(2)], dim=1).float()
    actions = deadly.lengths.cumsum(0) - deadly.lengths
    taken = torch.stack([deadly.actions[actions[long] + step] for step in range(2)], dim=1)
    with torch.no_grad():
        hidden, (_, cell) = agent.memory.lstm(torch.cat([z, taken], dim=-1))
    torch.testing.assert_close(late[1], torch.stack([hidden[:, -1], cell[0]], dim=1), atol=2e-3, rtol=2e-3)

    agent.starts, agent.start_states = starts.clone(), states
    agent.starts[:, 1] = -60.0
    dreams = Dreams(agent, dtype=torch.float32)
    dreams.reset(range(300))
    nearest = (dreams.z[:, None] - starts[None, :, 0].float()).abs().amax(-1) < 1e-6
    fitting = (dreams.h[:, None] - states[None, :, 0].float()).abs().amax(-1) < 1e-6
    assert (nearest & fitting).any(dim=1).all(), "z and memory belong to the same moment"
    assert (dreams.h != 0).any() and (dreams.h == 0).all(dim=1).any()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list["NotedDreams"]:
    """Every fitness in dreams that an evolution makes; the real world is a dream, too."""
    found = list[NotedDreams]()

    def dreams(*arguments: Any, dropout: float) -> Fitness:
        found.append(NotedDreams(*arguments))
        return found[-1]

    def world(executor: Executor, agent: Agent, backend: str) -> Fitness:
        return DreamFitness(executor, agent, 1.0, "sample")

    monkeypatch.setattr("worldmodels.evolution.phases.DreamFitness", dreams)
    monkeypatch.setattr("worldmodels.evolution.phases.WorldFitness", world)
    return found


class NotedDreams(DreamFitness):
    """Says whose dreams these are and which were dreamt."""

    def __init__(self, executor: Executor, agent: Agent, *settings: Any) -> None:
        super().__init__(executor, agent, *settings)
        self.agent, self.dream_model = agent, settings[2]
        self.seeds = list[int]()

    def __call__(
        self, controllers: np.ndarray, seeds: Sequence[int], steps: int, patience: int | None = None
    ) -> tuple[np.ndarray, int]:
        self.seeds += seeds
        return super().__call__(controllers, seeds, steps, patience)


def dream_evolution(agent: Agent, latents: Latents, episodes: int, others: Sequence[MDNRNN] = ()) -> Evolution:
    """One generation in dreams that start at step 2."""
    phase = PhaseConfig("dream", generations=1, population=2, episodes=episodes, max_steps=4, validation_episodes=2)
    config = EvolutionConfig(components=0, sequence=("sleep",), phases={"sleep": phase})
    return Evolution(agent, config, DreamConfig(start_steps=(2,)), LocalExecutor(), 1, latents, others)


def test_6_evolution_may_dream_on_from_other_moments_than_those_that_the_agent_keeps(
    deadly: Latents, made: list[NotedDreams], tmp_path: Path
) -> None:
    agent = Agent(Deadly(), ConvVAE(LATENT), MDNRNN(LATENT, 2, 24, 3, True, True), torch.zeros(66))
    agent.starts, agent.start_states = kept = dream_starts(agent.memory, deadly, (0,))
    dream_evolution(agent, deadly, episodes=2).run(tmp_path)
    assert agent.starts is kept[0] and agent.start_states is kept[1]
    starts, states = dream_starts(agent.memory, deadly, (2,))
    (dreamt,) = made
    assert dreamt.agent.starts is not None and torch.equal(dreamt.agent.starts, starts)
    assert dreamt.agent.start_states is not None and torch.equal(dreamt.agent.start_states, states)
    assert dreamt.dream_model is None and len(dreamt.seeds) == 2


def test_6_further_ms_dream_their_share_of_the_dreams_from_what_they_remember_themselves(
    deadly: Latents, made: list[NotedDreams], tmp_path: Path
) -> None:
    agent = Agent(Deadly(), ConvVAE(LATENT), MDNRNN(LATENT, 2, 24, 3, True, True), torch.zeros(66))
    agent.starts, agent.start_states = dream_starts(agent.memory, deadly, (0,))
    others = [MDNRNN(LATENT, 2, 24, 3, True, True) for _ in range(2)]
    dream_evolution(agent, deadly, 5, others).run(tmp_path)
    assert all(one.agent.memory is agent.memory for one in made)
    assert [one.dream_model.memory for one in made] == others
    assert [len(one.seeds) for one in made] == [3, 2] and not set(made[0].seeds) & set(made[1].seeds)
    for one in made:
        starts, states = dream_starts(one.dream_model.memory, deadly, (2,))
        assert torch.equal(one.dream_model.starts, starts) and torch.equal(one.dream_model.start_states, states)


def test_7_the_controller_sees_what_the_paper_gave_it() -> None:
    for name, seen in (("take-cover", ("z", "c", "h")), ("car-racing", ("z", "h"))):
        task = get_task(name)
        assert task.inputs == seen == resolved(preset("standard", name), task).controller.inputs
    agent = two_worlds()
    dreams = Dreams(agent)
    dreams.reset([1, 2])
    dreams.h, dreams.c = torch.full((2, 16), 5.0), torch.full((2, 16), 7.0)
    assert dreams.policy_inputs()[0, 6:].tolist() == [7.0] * 16 + [5.0] * 16


@pytest.mark.parametrize("limit", [1, 7, 40])
def test_8_no_dream_scores_more_than_its_limit_allows(limit: int) -> None:
    agent = two_worlds(end=-30.0)
    returns, dreamt_steps = DreamFitness(LocalExecutor(), agent, 1.0, "sample")(np.zeros((2, 39)), [1, 2, 3], limit)
    assert returns.tolist() == [[limit] * 3] * 2 and dreamt_steps == 6 * limit
    env = DreamVectorEnv(2, agent, max_steps=limit)
    env.reset(seed=1)
    total = sum(env.step(np.zeros(2, np.int64))[1] for _ in range(limit + 5))
    assert np.asarray(total).tolist() == [limit, limit]
    # And a dream in which death is certain pays once: the fatal step is lived, nothing after it.
    returns, _ = DreamFitness(LocalExecutor(), two_worlds(end=30.0), 1.0, "sample")(np.zeros((1, 39)), [1, 2], limit)
    assert returns.tolist() == [[1.0, 1.0]]


def test_9_real_scores_hold_no_step_that_nobody_chose() -> None:
    task, seeds = Scripted(), [31, 8, 40]
    # The world pays by its seed and by what was done in which step: an idle step, a lost seed or a step after the end
    # would change the sum.
    wanted = [sum(reward_at(seed, step) for step in range(length_of(seed))) for seed in seeds]
    assert evaluate(LocalExecutor(), task, lambda _: Diarist(), "slow", seeds, num_envs=2).returns.tolist() == wanted
    agent = Agent(task, ConvVAE(4), MDNRNN(4, 2, 8, 2, True, True), torch.zeros(26))
    returns, steps = WorldFitness(LocalExecutor(), agent, "fast")(np.zeros((2, 26)), seeds, 10, None)
    idle = [sum(seed + step / 8 for step in range(length_of(seed))) for seed in seeds]
    assert returns.tolist() == [idle, idle] and steps == 2 * sum(map(length_of, seeds))
