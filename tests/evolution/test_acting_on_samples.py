"""Agents that act on samples of z: the same in every batch, and in evolution, dreams and evaluation alike."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cases import call
from dream_agents import Noise, dreamer
from worldmodels.agent import Agent, load_agent
from worldmodels.data.encode import dream_starts, set_starts
from worldmodels.dream.latent_world import LatentWorld
from worldmodels.evaluation import agent_policy, evaluate
from worldmodels.evolution.fitness import WorldFitness
from worldmodels.evolution.subspace import recorded_inputs, visited_inputs
from worldmodels.execution.executor import LocalExecutor
from worldmodels.memory.latents import Latents
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.rollouts import rollout
from worldmodels.vision.conv_vae import ConvVAE
from worlds import MAX_STEPS, Scripted, ScriptedEnv

SEEDS = [3, 4, 5, 8, 4]


class Forward(Scripted):
    """The scripted world, whose pictures can show only actions from 0."""

    def env_action(self, control: np.ndarray) -> np.ndarray:
        return np.abs(control) / 2


def sampling() -> Agent:
    """A small agent that acts on samples of z."""
    torch.manual_seed(0)
    memory = MDNRNN(4, 2, 8, 2, reward=True, end=True)
    return Agent(Forward(), ConvVAE(4), memory, torch.randn(2 * 13), ("z", "h"), samples_z=True)


def alone(agent: Agent, controller: np.ndarray, seed: int) -> float:
    """The return of one episode that is played by itself."""
    policy = agent.policy(1, torch.from_numpy(controller[None].astype(np.float32)), [seed])
    return float(rollout(agent.task, ScriptedEnv(1), policy, [seed], MAX_STEPS).returns[0])


def test_fitness_is_that_of_every_episode_played_by_itself() -> None:
    agent, controllers = sampling(), np.random.default_rng(1).standard_normal((3, 26))
    found, _ = WorldFitness(LocalExecutor(), agent, "fast")(controllers, SEEDS, MAX_STEPS)
    wanted = [[alone(agent, controller, seed) for seed in SEEDS] for controller in controllers]
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert np.array_equal(found[:, 1], found[:, 4]), "the same episode, with the same samples"
    agent.samples_z = False
    assert np.abs(WorldFitness(LocalExecutor(), agent, "fast")(controllers, SEEDS, MAX_STEPS)[0] - found).max() > 1e-3


@pytest.mark.parametrize("num_envs", [1, 2, 5])
def test_a_score_does_not_depend_on_how_many_episodes_are_played_together(num_envs: int) -> None:
    agent = sampling()
    found = evaluate(LocalExecutor(), agent.task, agent_policy(agent), "fast", SEEDS, num_envs).returns
    np.testing.assert_allclose(found, [alone(agent, agent.controller.numpy(), seed) for seed in SEEDS], atol=1e-4)


def test_the_inputs_that_c_visits_are_those_of_its_own_samples() -> None:
    agent = sampling()
    together = visited_inputs(LocalExecutor(), agent, "fast", [3, 4], MAX_STEPS)
    apart = [visited_inputs(LocalExecutor(), agent, "fast", [seed], MAX_STEPS) for seed in (3, 4)]
    np.testing.assert_allclose(together[:2], [one[0] for one in apart], atol=1e-5)


def wide_latents() -> Latents:
    """Six episodes of nine steps, in which V is not sure of anything."""
    mu = torch.randn(60, 4, generator=torch.Generator().manual_seed(1)).half()
    steps = torch.zeros(54, 2), torch.zeros(54)
    ends, lengths = torch.zeros(6, dtype=torch.uint8), torch.full((6,), 9)
    return Latents(mu, torch.full_like(mu, 2 * np.log(2)), *steps, ends, lengths)


def test_recorded_inputs_and_the_states_at_starts_are_those_of_an_agent_that_acts_on_samples() -> None:
    agent, latents = sampling(), wide_latents()
    inputs = {samples: recorded_inputs(replaced(agent, samples), latents) for samples in (True, False)}
    # The variance of the samples is that of the means, 1, and 4 on top of it.
    z = {samples: one[:, :4].var() for samples, one in inputs.items()}
    assert z[False] == pytest.approx(1.0, abs=0.4) and z[True] == pytest.approx(5.0, abs=2.0)
    assert np.array_equal(inputs[True], recorded_inputs(replaced(agent, True), latents))
    set_starts(agent, latents, (0, 5))
    assert agent.starts is not None and agent.start_states is not None
    starts, states = dream_starts(agent.memory, latents, (0, 5))
    assert torch.equal(agent.starts, starts), "where dreams start is what V says, mean and variance"
    assert torch.equal(agent.start_states[:6], states[:6]) and (agent.start_states[6:] != states[6:]).any()


def replaced(agent: Agent, samples_z: bool) -> Agent:
    agent.samples_z = samples_z
    return agent


def test_the_latent_world_shows_the_samples_on_which_the_agent_acts() -> None:
    agent = dreamer()
    agent.samples_z = True
    world, plain, policy = LatentWorld(Noise(), agent), Noise(), agent.policy(1, seeds=[5])
    for _ in range(2):
        inputs, observation = world.reset(seed=5)[0], plain.reset()[0]
        policy.reset()
        for _ in range(4):
            action = policy.act(observation[None])[0]
            np.testing.assert_allclose(inputs, policy.inputs[0].numpy(), atol=1e-5)
            inputs, observation = world.step(action)[0], plain.step(action)[0]
    assert (world.reset(seed=6)[0] != world.reset(seed=5)[0]).any()
    assert (world.reset()[0] != world.reset()[0]).any(), "without a seed, every episode has samples of its own"


@pytest.mark.usefixtures("short_world")
def test_a_run_makes_such_an_agent_from_the_v_and_m_of_another(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    command = ("train", "car-racing", "--from", finished, "--run", run, "--controller.acts-on", "sample")
    outcome = call(capsys, *command)
    assert outcome.code == 0, outcome.err
    assert "memory: taken over" in outcome.err and "controller: done again" in outcome.err
    assert load_agent(run).samples_z and not load_agent(finished).samples_z
