"""M's clock: how many steps of an episode are behind, in training, when acting and in dreams alike."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dream_agents import CPU, Noise, dreamer, paid_step_by_step
from worldmodels.agent import AGENT_FILE, Agent, load_agent
from worldmodels.core.errors import UserError
from worldmodels.core.files import load_tensors, write_json
from worldmodels.core.settings import to_json
from worldmodels.data.encode import set_starts
from worldmodels.dream.dreams import Dreams
from worldmodels.dream.fast.counter_based import CounterBasedStreams
from worldmodels.dream.fast.streams import NumpyStreams
from worldmodels.dream.latent_world import LatentWorld
from worldmodels.evolution.dream_fitness import DreamFitness
from worldmodels.execution.executor import LocalExecutor
from worldmodels.memory.config import MemoryConfig
from worldmodels.memory.latents import Latents
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.memory.moments import Moments
from worldmodels.memory.packed import PackedMemory
from worldmodels.memory.train import SequenceSampler, train_memory
from worldmodels.rollouts import rollout
from worldmodels.run.config import Config
from worldmodels.run.presets import preset, resolved
from worldmodels.run.run import LAYOUT, read_config
from worldmodels.tasks import get_task
from worldmodels.tasks.base import Observations
from worldmodels.vision.conv_vae import ConvVAE
from worlds import MAX_STEPS, Scripted, ScriptedEnv, length_of

Z, H, CLOCK = 6, 16, 20


def clocked(task: str = "car-racing", seed: int = 0, **options: Any) -> Agent:
    """A small untrained agent with a clock, to which M pays much attention."""
    agent = dreamer(task, end_bias=-20.0, seed=seed)
    old = agent.memory
    memory = MDNRNN(Z, old.action_size, H, 3, old.reward_head is not None, end=True, clock=CLOCK, **options)
    with torch.no_grad():
        memory.lstm.weight_ih_l0[:, -1] = 3 * torch.randn(4 * H, generator=torch.Generator().manual_seed(seed))
        assert memory.end_head is not None
        memory.end_head.bias.fill_(-20.0)
    agent.memory = memory.eval()
    return agent


def with_input(memory: MDNRNN, z: Tensor, actions: Tensor, steps: Sequence[float]) -> tuple[Tensor, Tensor]:
    """What torch's LSTM computes along one sequence (T, ...) with the clock as one more input; h and c (T, H)."""
    column = torch.tensor(steps)[:, None] / memory.clock
    hidden, (_, c) = memory.lstm(torch.cat([z, actions, column], dim=1)[None])
    return hidden[0], c[0, 0]


def test_sequences_bursts_and_steps_see_the_same_time() -> None:
    memory, z, actions = clocked().memory, torch.randn(1, 12, Z), torch.rand(1, 12, 3)
    with torch.no_grad():
        wanted, last_c = with_input(memory, z[0], actions[0], range(5, 17))
        begin = torch.tensor([5])
        means = memory(z, actions, None, None, begin).mixture.means[0]
        torch.testing.assert_close(means, memory.heads(wanted).mixture.means, atol=1e-5, rtol=1e-5)
        for mask in (None, torch.ones(1, Z + H)):
            h, c = memory.follow(z, actions, torch.tensor([12]), mask, begin)
            torch.testing.assert_close(h[0], wanted[-1], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(c[0], last_c, atol=1e-4, rtol=1e-4)
        state = memory.initial_state(1)
        packed, own = PackedMemory(memory), memory.initial_state(1)
        for step in range(12):
            state = memory.step(z[:, step], actions[:, step], state, torch.tensor([5.0 + step]))
            own = packed.step(z[:, step], actions[:, step], own, None, torch.tensor([[5.0 + step]]))
            torch.testing.assert_close(state[0][0], wanted[step], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(own[0][0], wanted[step], atol=1e-5, rtol=1e-5)


def test_a_clock_is_one_input_beside_the_restart() -> None:
    assert MDNRNN(Z, 3, H, restart=True, clock=CLOCK).lstm.input_size == Z + 3 + 2
    assert MDNRNN(Z, 3, H).lstm.input_size == Z + 3


# --- training ------------------------------------------------------------------------------------------------


def dated_latents() -> Latents:
    """Six episodes of 4 to 19 steps; every frame's z is (episode, step)."""
    lengths = torch.tensor([4, 19, 9, 12, 5, 7])
    mu = torch.cat([torch.tensor([[e, s] for s in range(n + 1)]) for e, n in enumerate(lengths.tolist())])
    steps = int(lengths.sum())
    ends = torch.ones(6, dtype=torch.uint8)
    few = torch.zeros(steps, 3), torch.zeros(steps), ends
    return Latents(mu.half(), torch.full(mu.shape, -60.0).half(), *few, lengths)


@pytest.mark.parametrize("burn_in", [0, 3, 100])
def test_a_sequence_and_its_burn_in_know_how_many_steps_are_behind_them(burn_in: int) -> None:
    sampler = SequenceSampler(dated_latents(), 50, 4, 1, burn_in)
    for step in range(5):
        (z, _, _), before = sampler.batch(step), sampler.before(step)
        assert torch.equal(z[:, 0, 1].round().long(), sampler.steps(step))
        if before is not None:
            some = before.lengths > 0
            assert torch.equal(before.z[some, 0, 1].round().long(), before.steps[some])
            assert torch.equal(before.steps + before.lengths, sampler.steps(step))
    assert burn_in == 0 or before is not None


def test_training_can_tell_moments_apart_that_only_the_clock_distinguishes(tmp_path: Path) -> None:
    lengths = torch.full((30,), 10)
    frames = torch.randn(330, 2, generator=torch.Generator().manual_seed(1)).half() / 10
    rewards = torch.arange(10.0).repeat(30) - 4.5  # from nothing but time
    ends = torch.zeros(30, dtype=torch.uint8)
    latents = Latents(frames, torch.full_like(frames, -60.0), torch.zeros(300, 1), rewards, ends, lengths)
    losses = []
    for clock in (0, 10):
        torch.manual_seed(0)
        memory = MDNRNN(2, 1, 16, 2, reward=True, clock=clock)
        config = MemoryConfig(steps=150, batch=16, length=1, lr=1e-2, clock=clock)
        losses.append(train_memory(memory, latents, config, 1, CPU, tmp_path / str(clock))["reward"])
    assert losses[0] > 4 and losses[1] < 0.5 * losses[0]


# --- acting --------------------------------------------------------------------------------------------------


def noted_steps(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """The time that M is told at every step from now on."""
    told: list[list[float]] = []
    step = MDNRNN.step

    def noting(memory: MDNRNN, z: Tensor, actions: Tensor, state: Any, steps: Tensor | None = None) -> Any:
        assert steps is not None
        told.append(steps.tolist())
        return step(memory, z, actions, state, steps)

    monkeypatch.setattr(MDNRNN, "step", noting)
    return told


class Passive(ScriptedEnv):
    """The scripted world, whose rows can be reset one by one."""

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        mask = (options or {}).get("reset_mask")
        if mask is None:
            return super().reset(seed=seed)
        for row in np.flatnonzero(mask):
            self._seeds[row], self._seen[row] = seed[row], (seed[row], 0, 0)
        self._alive |= mask
        return self._seen, {}


def test_every_row_has_its_own_time_from_the_start_of_its_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Scripted()
    memory, controller = MDNRNN(4, 2, 8, 2, clock=CLOCK), torch.zeros(2 * 13)
    agent = Agent(task, ConvVAE(4), memory, controller, ("z", "h"))
    told = noted_steps(agent, monkeypatch)
    seeds = list(range(3, 12))
    rollout(task, Passive(3), agent.policy(3), seeds, MAX_STEPS)
    # Each episode of n steps tells 0 to n - 1, whatever row it is played in and whoever ended before.
    everything = sorted(time for row in told for time in row)
    assert everything == sorted(float(time) for seed in seeds for time in range(length_of(seed)))
    assert told[0] == [0.0] * 3 and any(len(set(row)) > 1 for row in told)


def test_a_policy_that_is_reset_or_joins_late_tells_the_right_time(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent(Scripted(), ConvVAE(4), MDNRNN(4, 2, 8, 2, clock=CLOCK), torch.zeros(2 * 13), ("z", "h"))
    told = noted_steps(agent, monkeypatch)
    policy, seen = agent.policy(2), Observations(agent.task, np.zeros((2, 3), np.uint8))
    policy.act(seen)
    policy.act(seen)
    policy.reset()
    policy.act(seen.of(np.array([1])), np.array([1]))
    policy.act(seen)
    policy.reset()
    policy.join(7)
    policy.act(seen)
    assert told == [[0, 0], [1, 1], [0], [0, 1], [7, 7]]


def test_the_latent_world_tells_the_time_as_an_acting_agent_does() -> None:
    agent = clocked()
    world, plain, policy = LatentWorld(Noise(), agent), Noise(), agent.policy(1)
    for _ in range(2):  # the second episode begins at zero again
        inputs, observation = world.reset()[0], plain.reset()[0]
        policy.reset()
        for _ in range(5):
            action = policy.act(observation[None])[0]
            np.testing.assert_allclose(inputs, policy.inputs[0].numpy(), atol=1e-5)
            inputs, observation = world.step(action)[0], plain.step(action)[0]


# --- dreams --------------------------------------------------------------------------------------------------

STREAMS = pytest.mark.parametrize("streams", [NumpyStreams, CounterBasedStreams])


@STREAMS
@pytest.mark.parametrize("other", [False, True])
def test_a_dream_goes_on_from_the_time_of_its_recorded_moment(streams: Any, other: bool) -> None:
    agent, model = clocked("take-cover"), clocked("take-cover", seed=1) if other else None
    agent.moments = Moments(torch.tensor([0, 3, 50, 700, 9], dtype=torch.int32))
    if model is not None:
        model.starts = agent.starts
    dreams, seeds = Dreams(agent, 1.0, "sample", torch.float32, streams, model), [3, 8, 5, 9]
    dreams.reset(seeds)
    which = streams(seeds, Z, CPU).start(5)[0]
    assert agent.moments.steps is not None and len(set(which.tolist())) > 1
    begun = agent.moments.steps[which].float()
    states = [agent.memory.initial_state(4)] * (2 if other else 1)
    for step in range(8):
        z, actions = dreams.z, torch.randn(4, 1, generator=torch.Generator().manual_seed(step))
        dreams.step(actions)
        with torch.no_grad():
            memories = [agent.memory] if model is None else [agent.memory, model.memory]
            pairs = zip(memories, states, strict=True)
            states = [memory.step(z, actions, state, begun + step) for memory, state in pairs]
        torch.testing.assert_close(dreams.h, torch.cat([h for h, _ in states], dim=1), atol=1e-4, rtol=1e-4)


@STREAMS
def test_new_dreams_and_moved_ones_have_their_own_time(streams: Any) -> None:
    agent = clocked()
    agent.moments = Moments(torch.full((5,), 30, dtype=torch.int32))
    dreams, fresh = (Dreams(agent, 1.0, "sample", torch.float32, streams) for _ in range(2))
    dreams.reset([3, 8])
    fresh.reset([21])
    actions = torch.full((2, 3), 0.3)
    for _ in range(5):
        dreams.step(actions)
    dreams.restart(torch.tensor([1]), [21])
    for _ in range(5):
        dreams.step(actions)
        fresh.step(actions[:1])
    torch.testing.assert_close(dreams.h[1:], fresh.h, atol=1e-4, rtol=1e-4)
    z, (h, c) = torch.randn(2, Z), agent.memory.initial_state(2)
    dreams.move(z, h, c, torch.tensor([[4.0], [900.0]]))
    dreams.step(actions)
    with torch.no_grad():
        wanted, _ = agent.memory.step(z, actions, (h, c), torch.tensor([4.0, 900.0]))
    torch.testing.assert_close(dreams.h, wanted, atol=1e-4, rtol=1e-4)


@STREAMS
def test_fitness_in_dreams_with_a_clock_is_what_single_steps_pay(streams: Any) -> None:
    agent, seeds = clocked(), [11, 12, 13]
    assert agent.memory.end_head is not None
    with torch.no_grad():
        agent.memory.end_head.bias.fill_(-2.0)
    agent.moments = Moments(torch.tensor([0, 3, 50, 700, 9], dtype=torch.int32))
    controllers = np.random.default_rng(1).standard_normal((3, len(agent.controller)))
    found, _ = DreamFitness(LocalExecutor(), agent, 1.0, "sample", None, torch.float32, streams)(controllers, seeds, 40)
    for index in range(3):
        dreams = Dreams(agent, 1.0, "sample", torch.float32, streams)
        wanted = paid_step_by_step(agent, dreams, controllers[index], seeds, 40)
        np.testing.assert_allclose(found[index], wanted, atol=1e-2)


def test_starts_keep_their_step_and_the_state_that_m_has_with_its_clock_there() -> None:
    latents, steps = dated_latents(), (0, 4, 9)
    torch.manual_seed(0)
    memory = MDNRNN(2, 3, 8, 2, reward=True, end=True, clock=CLOCK)
    agent = Agent(get_task("car-racing"), ConvVAE(2), memory, torch.zeros(3 * 11))
    set_starts(agent, latents, steps)
    assert agent.starts is not None and agent.start_states is not None and agent.moments.steps is not None
    assert agent.starts[:, 0, 1].int().tolist() == agent.moments.steps.tolist()
    assert set(agent.moments.steps.tolist()) == set(steps)
    moments = zip(agent.starts, agent.start_states, agent.moments.steps.tolist(), strict=True)
    for start, states, step in moments:
        z = torch.tensor([[float(start[0, 0]), float(now)] for now in range(step)]).reshape(1, step, 2)
        if step:
            h, _ = memory.follow(z, torch.zeros(1, step, 3), torch.tensor([step]))
            torch.testing.assert_close(states[0].float(), h[0], atol=2e-3, rtol=2e-3)


# --- files ---------------------------------------------------------------------------------------------------


def test_an_agents_file_holds_its_clock_and_the_steps_of_its_starts(tmp_path: Path) -> None:
    agent = clocked()
    agent.moments = Moments(torch.tensor([0, 3, 50, 2099, 9], dtype=torch.int32))
    agent.save(tmp_path)
    found = load_agent(tmp_path)
    assert found.memory.clock == CLOCK and found.moments.steps is not None
    assert found.moments.steps.tolist() == [0, 3, 50, 2099, 9]
    digest = found.digest()
    found.memory.clock += 1
    assert found.digest() != digest
    agent.moments = Moments(torch.tensor([0, 3]))
    agent.save(tmp_path)
    with pytest.raises(UserError, match="expected 5 steps of 0 and more as start_steps"):
        load_agent(tmp_path)


def test_an_agent_without_a_clock_has_a_file_as_before(tmp_path: Path) -> None:
    agent = dreamer()
    agent.save(tmp_path)
    tensors, meta = load_tensors(tmp_path / AGENT_FILE)
    assert "clock" not in json.dumps(meta) and "start_steps" not in tensors
    assert load_agent(tmp_path).memory.clock == 0 and load_agent("car-racing").memory.clock == 0


# --- settings ------------------------------------------------------------------------------------------------


def test_a_new_run_has_the_tasks_clock_unless_it_is_switched() -> None:
    for name, wanted in (("take-cover", 2100), ("car-racing", 0)):
        task, config = get_task(name), preset("standard", name)
        assert config.memory.clock is None and resolved(config, task).memory.clock == wanted
        for own in (0, 500):
            assert resolved(config.with_settings(**{"memory.clock": own}), task).memory.clock == own


def test_a_run_of_an_earlier_version_goes_on_without_a_clock(tmp_path: Path) -> None:
    task = get_task("take-cover")
    content = {"layout": LAYOUT, **to_json(resolved(preset("standard", "take-cover"), task))}
    del content["memory"]["clock"]
    write_json(tmp_path / "run.json", content, checksum=True)
    config = read_config(tmp_path)
    assert isinstance(config, Config) and config.memory.clock == 0
