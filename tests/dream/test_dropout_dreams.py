"""Dreams with dropout: one mask per dream, which follows from its seed, for what the M that dreams sees."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from dream_agents import CPU, dream_along, dreamer, paid_step_by_step, take
from worldmodels.agent import Agent
from worldmodels.core.errors import UserError
from worldmodels.dream.dreams import Dreams
from worldmodels.dream.env import DreamVectorEnv
from worldmodels.dream.fast.counter_based import CounterBasedStreams
from worldmodels.dream.fast.streams import NumpyStreams
from worldmodels.evolution import dream_fitness
from worldmodels.evolution.dream_fitness import DreamFitness
from worldmodels.execution.executor import LocalExecutor

Streams = type[NumpyStreams] | type[CounterBasedStreams]
BOTH = pytest.mark.parametrize("streams", [NumpyStreams, CounterBasedStreams])
RATE = 0.3


def dreams_of(agent: Agent, seeds: Sequence[int], streams: Streams, other: Agent | None = None) -> Dreams:
    dreams = Dreams(agent, 1.1, "sample", torch.float32, streams, other, RATE)
    dreams.reset(seeds)
    return dreams


def masks_of(seeds: Sequence[int], streams: Streams) -> Tensor:
    return (streams(seeds, 6, CPU).dropout(6 + 16) >= RATE).float() / (1 - RATE)


@BOTH
def test_masks_belong_to_the_seed_and_not_to_the_batch(streams: Streams) -> None:
    together, alone = streams([3, 8, 5], 4, CPU), streams([8], 4, CPU)
    numbers = together.dropout(50)
    assert numbers.shape == (3, 50) and numbers.min() >= 0 and numbers.max() < 1 and len(numbers.unique()) > 140
    assert torch.equal(numbers[1:2], alone.dropout(50)) and torch.equal(together.dropout(50, [2, 1]), numbers[[2, 1]])
    shared = streams([3, 8, 3], 4, CPU, True)
    assert torch.equal(shared.dropout(50), numbers[[0, 1, 0]])
    shared.keep(torch.tensor([1, 2]))
    assert torch.equal(shared.dropout(50), numbers[[1, 0]])


@BOTH
def test_the_other_numbers_are_the_same_with_masks_and_without(streams: Streams) -> None:
    plain, masked = streams([3, 8], 4, CPU), streams([3, 8], 4, CPU)
    for one, other in zip(plain.start(9), masked.start(9), strict=True):
        assert torch.equal(one, other)
    masked.dropout(20)
    np.testing.assert_array_equal(take(plain, 40), take(masked, 40))


@BOTH
def test_a_dream_is_m_stepped_with_its_mask_and_c_sees_everything(streams: Streams) -> None:
    agent, seeds = dreamer(), [3, 8, 5]
    dreams, mask = dreams_of(agent, seeds, streams), masks_of(seeds, streams)
    assert 0 < (mask == 0).float().mean() < 0.6
    h, c = agent.memory.initial_state(3)
    for step in range(10):
        z, actions = dreams.z, torch.rand(3, 3, generator=torch.Generator().manual_seed(step))
        dreams.step(actions)
        with torch.no_grad():
            h, c = agent.memory.step(z * mask[:, :6], actions, (h * mask[:, 6:], c))
        torch.testing.assert_close(dreams.h, h, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(dreams.c, c, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(dreams.policy_inputs(), torch.cat([dreams.z, dreams.h], dim=1))


@BOTH
def test_where_another_m_dreams_only_that_one_is_masked(streams: Streams) -> None:
    agent, other = dreamer("take-cover", end_bias=-20.0), dreamer("take-cover", end_bias=-20.0, seed=1)
    other.starts, seeds = agent.starts, [3, 8, 5]
    alone, both = dreams_of(other, seeds, streams), dreams_of(agent, seeds, streams, other)
    state = agent.memory.initial_state(3)
    for step in range(12):
        z, actions = both.z, torch.randn(3, 1, generator=torch.Generator().manual_seed(step))
        assert torch.equal(both.step(actions)[1], alone.step(actions)[1])
        with torch.no_grad():
            state = agent.memory.step(z, actions, state)
        torch.testing.assert_close(both.z, alone.z)
        torch.testing.assert_close(both.h, torch.cat([state[0], alone.h], dim=1))


@BOTH
def test_a_dream_that_begins_anew_draws_a_new_mask_and_the_others_keep_theirs(streams: Streams) -> None:
    agent = dreamer(end_bias=-20.0)
    dreams, fresh, other = (dreams_of(agent, seeds, streams) for seeds in ([3, 8], [21], [3]))
    actions = torch.full((2, 3), 0.3)
    for _ in range(7):
        dreams.step(actions)
        other.step(actions[:1])
    dreams.restart(torch.tensor([1]), [21])
    for _ in range(10):
        dreams.step(actions)
        other.step(actions[:1])
        fresh.step(actions[:1])
        torch.testing.assert_close(dreams.h, torch.cat([other.h, fresh.h]), atol=1e-4, rtol=1e-4)


def test_ended_rows_keep_their_mask_and_state_until_they_are_reset() -> None:
    agent = dreamer(end_bias=-2.0)
    env = DreamVectorEnv(32, agent, dropout=RATE, dtype=torch.float32)
    history = dream_along(env, range(32), 20)
    ended = np.any([one[2] for one in history[1:]], axis=0)
    assert 0 < ended.sum() < 32
    alone = dream_along(DreamVectorEnv(1, agent, dropout=RATE, dtype=torch.float32), [5], 20)
    for together, one in zip(history, alone, strict=True):
        np.testing.assert_allclose(together[0][5], one[0][0], atol=1e-3)


def test_dropout_changes_a_dream_and_none_leaves_it_as_it_was() -> None:
    agent = dreamer()
    plain, none, masked = (
        dream_along(DreamVectorEnv(3, agent, dtype=torch.float32, **options), [1, 2, 3], 20)
        for options in ({}, {"dropout": 0.0}, {"dropout": RATE})
    )
    for one, other in zip(plain, none, strict=True):
        assert all((a == b).all() for a, b in zip(one, other, strict=True))
    assert (plain[0][0] == masked[0][0]).all() and (plain[1][0] != masked[1][0]).any(axis=1).all()


@pytest.mark.parametrize("candidates", [3, 250])
@BOTH
def test_fitness_in_masked_dreams_is_what_single_steps_pay(
    streams: Streams, candidates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dream_fitness, "_FEW", 8)  # so that even these few rows are halved
    monkeypatch.setattr(dream_fitness, "_EVERY", 8)
    agent, seeds = dreamer(end_bias=-2.5), [11, 12, 13, 12]
    controllers = np.random.default_rng(1).standard_normal((candidates, len(agent.controller)))
    fitness = DreamFitness(LocalExecutor(), agent, 1.1, "sample", None, torch.float32, streams, RATE)
    found, _ = fitness(controllers, seeds, 45)
    for index in range(0, candidates, max(1, candidates // 3)):
        wanted = paid_step_by_step(agent, dreams_of(agent, seeds, streams), controllers[index], seeds, 45)
        np.testing.assert_allclose(found[index], wanted, atol=1e-2)
    again, _ = fitness(controllers, seeds, 45)
    np.testing.assert_allclose(again, found, atol=1e-5)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_an_impossible_dropout_is_refused(rate: float) -> None:
    with pytest.raises(UserError, match="expected a dropout from 0 to below 1"):
        DreamVectorEnv(1, dreamer(), dropout=rate)
