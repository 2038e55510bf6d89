"""Hits: the health is recorded, M learns when it falls, and a dream has a health of its own."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from gymnasium.vector import VectorEnv
from torch import Tensor

from cases import flip
from dream_agents import CPU, dreamer, paid_step_by_step
from worldmodels.agent import AGENT_FILE, Agent, load_agent
from worldmodels.core.errors import UserError
from worldmodels.core.files import load_tensors
from worldmodels.core.progress import Progress
from worldmodels.data.collect import record_episodes
from worldmodels.data.encode import encode_shard, recorded_drops, set_starts
from worldmodels.data.episodes import Episode, EpisodeStore, Shard
from worldmodels.data.latents import load_latents, save_latents
from worldmodels.dream.dreams import Dreams
from worldmodels.dream.env import DreamVectorEnv
from worldmodels.dream.fast.counter_based import CounterBasedStreams
from worldmodels.dream.fast.streams import NumpyStreams
from worldmodels.evolution.dream_fitness import DreamFitness
from worldmodels.execution.executor import LocalExecutor
from worldmodels.memory.config import MemoryConfig
from worldmodels.memory.latents import Latents
from worldmodels.memory.mdnrnn import MDNRNN, Prediction, Targets, memory_loss
from worldmodels.memory.mixture import Mixture
from worldmodels.memory.moments import Moments
from worldmodels.memory.packed import PackedMemory
from worldmodels.memory.train import SequenceSampler, train_memory
from worldmodels.run.presets import preset
from worldmodels.run.run import check_settings
from worldmodels.vision.conv_vae import ConvVAE
from worlds import MAX_STEPS, Diarist, Scripted, ScriptedEnv, ends_by_itself, length_of, scripted_episodes

SEEDS = range(3, 15)


def health_at(seed: int, step: int) -> float:
    """100 at first, 7 less at every second step, and 0 after death."""
    return 0.0 if step == length_of(seed) and ends_by_itself(seed) else 100.0 - 7 * (step // 2)


class WoundingEnv(ScriptedEnv):
    """The scripted world, which tells the health and overwrites it at every step."""

    def reset(self, **options: Any) -> Any:
        seen, _ = super().reset(**options)
        self._health = np.zeros(self.num_envs, np.float32)
        return seen, self._info()

    def step(self, actions: np.ndarray) -> Any:
        *result, _ = super().step(actions)
        return *result, self._info()

    def _info(self) -> dict[str, Any]:
        self._health[:] = [health_at(int(seed), int(step)) for seed, step, _ in self._seen]
        return {"health": self._health}


class Wounding(Scripted):
    full_health = 100.0

    def _make(self, num_envs: int, backend: str) -> VectorEnv:
        return WoundingEnv(num_envs)


def wounding_episodes(seeds: Any = SEEDS) -> list[Episode]:
    return record_episodes(LocalExecutor(), Wounding(), "fast", lambda _: Diarist(), list(seeds), MAX_STEPS)


class Glance(ConvVAE):
    """Its z is (seed, step) as the frame shows them."""

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mu = images[:, :2, 0, 0].float() * 255
        return mu, torch.full_like(mu, -60.0)


def stored(directory: Path, *shards: list[Episode]) -> Latents:
    """Latents of the shards, after a round trip through both stores."""
    store = EpisodeStore(directory / "episodes")
    for index, episodes in enumerate(shards):
        store.write(index, episodes)
    with Progress(1, "encode", "frames") as bar:
        for index, shard in enumerate(store.shards()):
            save_latents(directory / "latents", index, encode_shard(Glance(2), Wounding(), shard, bar), "V")
    return load_latents(directory / "latents", len(shards), "V")


# --- recorded ------------------------------------------------------------------------------------------------


def test_the_health_at_every_frame_is_recorded_and_stored(tmp_path: Path) -> None:
    episodes = wounding_episodes()
    store = EpisodeStore(tmp_path)
    store.write(0, episodes)
    (shard,) = store.shards()
    for found in (episodes, list(shard.episodes())):
        for seed, episode in zip(SEEDS, found, strict=True):
            assert episode.health is not None and episode.health.dtype == np.float32
            assert episode.health.tolist() == [health_at(seed, step) for step in range(length_of(seed) + 1)]


def test_worlds_without_a_health_are_stored_as_before(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    store.write(0, scripted_episodes(SEEDS))
    assert not (store.shard_path(0) / "health").exists()
    (shard,) = store.shards()
    assert shard.health is None and shard.episode(0).health is None


def test_episodes_without_it_in_the_same_shard_have_an_unknown_health(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    store.write(0, [*scripted_episodes([3]), *wounding_episodes([4])])
    (shard,) = store.shards()
    first, second = (shard.episode(index).health for index in (0, 1))
    assert first is not None and np.isnan(first).all() and second is not None and np.isfinite(second).all()


def cut(path: Path) -> None:
    """Fewer numbers than frames."""
    group: Any = zarr.open_group(path, mode="a", zarr_format=3)
    values = group["health"][:-1]
    del group["health"]
    group.create_array("health", data=values)


def retyped(path: Path) -> None:
    group: Any = zarr.open_group(path, mode="a", zarr_format=3)
    values = group["health"][:].astype(np.float64)
    del group["health"]
    group.create_array("health", data=values)


def flipped(path: Path) -> None:
    (chunk,) = [one for one in (path / "health" / "c").rglob("*") if one.is_file()]
    flip(chunk)


@pytest.mark.parametrize("damage", [cut, retyped, flipped])
def test_a_damaged_health_is_refused(damage: Callable[[Path], None], tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    store.write(0, wounding_episodes())
    damage(store.shard_path(0))
    with pytest.raises(UserError, match="are damaged"):
        Shard(store.shard_path(0))


# --- learnt --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 4, 200])
def test_hits_are_the_steps_in_which_the_health_falls(length: int, tmp_path: Path) -> None:
    latents = stored(tmp_path, wounding_episodes(), scripted_episodes([20, 21]))
    sampler, seen = SequenceSampler(latents, 64, length, 1), set()
    for step in range(6):
        z, _, targets = sampler.batch(step)
        assert targets.hits is not None
        for row, place in (targets.mask == 1).nonzero().tolist():
            seed, now = z[row, place].round().int().tolist()
            hit = targets.hits[row, place].item()
            if seed >= 20:
                assert np.isnan(hit), "recorded without a health"
            else:
                assert hit == float(health_at(seed, now + 1) < health_at(seed, now))
            seen.add((seed, hit))
    assert {hit for _, hit in seen if hit == hit} == {0.0, 1.0}


def flat(hit_logit: Tensor) -> Prediction:
    means = torch.zeros(*hit_logit.shape, 2, 1)
    return Prediction(Mixture(torch.zeros_like(means), means, torch.zeros_like(means)), None, None, hit_logit)


def test_hits_cost_their_weighted_cross_entropy_where_they_are_known() -> None:
    logit, nan = torch.tensor([[0.0, 2.0, -1.0, 5.0, 50.0]]), float("nan")
    hits, mask = torch.tensor([[0.0, 0.0, 1.0, nan, 1.0]]), torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0]])
    targets = Targets(torch.zeros(1, 5, 2), torch.zeros(1, 5), torch.zeros(1, 5), mask, hits=hits)
    _, parts = memory_loss(flat(logit.requires_grad_()), targets, hit_weight=10.0)
    sigmoid = 1 / (1 + np.exp(-logit.detach().double().numpy()[0]))
    wanted = (-np.log(1 - sigmoid[0]) - np.log(1 - sigmoid[1]) - 10 * np.log(sigmoid[2])) / 3
    assert parts["hit"].item() == pytest.approx(wanted, rel=1e-6)
    parts["hit"].backward()  # type: ignore[no-untyped-call]
    assert logit.grad is not None and logit.grad[0, 3:].tolist() == [0.0, 0.0] and logit.grad.isfinite().all()
    unknown = targets._replace(hits=torch.full((1, 5), nan))
    assert memory_loss(flat(logit), unknown, hit_weight=10.0)[1]["hit"].item() == 0.0


def test_the_probability_of_a_hit_is_without_its_weight() -> None:
    memory = MDNRNN(4, 2, 8, hit=True)
    memory.hit_weight.fill_(10.0)
    logit = torch.tensor([10 / 4]).log()
    assert torch.sigmoid(memory.unweighted_hit_logit(logit)).item() == pytest.approx(0.2, rel=1e-5)


def test_training_learns_hits_and_refuses_episodes_without_a_health(tmp_path: Path) -> None:
    stream, lengths = torch.Generator().manual_seed(1), torch.full((20,), 10)
    mu = torch.randn(20, 11, 2, generator=stream)
    hit = torch.nn.functional.pad((mu[:, :-1, 0] > 0.5).float(), (1, 0))  # what is seen before decides
    frames, nothing, ends = mu.reshape(220, 2).half(), torch.zeros(200, 1), torch.ones(20, dtype=torch.uint8)
    health = (100.0 - hit.cumsum(1)).reshape(220)
    latents = Latents(frames, torch.full_like(frames, -60.0), nothing, nothing[:, 0], ends, lengths, None, health)
    losses = []
    for steps in (0, 80):
        torch.manual_seed(0)
        memory = MDNRNN(2, 1, 16, 2, hit=True)
        config = MemoryConfig(steps=steps, batch=16, length=8, lr=2e-2, hit_weight=2.0)
        losses.append(train_memory(memory, latents, config, 1, CPU, tmp_path / str(steps)))
    assert set(losses[0]) == {"nll", "hit"} and losses[1]["hit"] < 0.5 * losses[0]["hit"]
    assert memory.hit_weight.item() == 2.0
    for unknown in (None, torch.full((220,), torch.nan)):
        with pytest.raises(UserError, match="expected episodes with the health"):
            train_memory(memory, replace(latents, health=unknown), config, 1, CPU, tmp_path / "bare")


def test_the_packed_memory_predicts_hits_as_m_does() -> None:
    for heads in ({}, {"reward": True}, {"end": True}, {"reward": True, "end": True}):
        memory = MDNRNN(6, 3, 16, 3, **heads, hit=True)
        hidden = torch.randn(50, 16)
        drawn = PackedMemory(memory).draw(hidden, torch.rand(50, 6), torch.randn(50, 6), 1.0)
        with torch.no_grad():
            wanted = memory.heads(hidden)
        for found, one in zip(drawn[1:], wanted[1:], strict=True):
            assert (found is None) == (one is None)
            if found is not None:
                torch.testing.assert_close(found, one, atol=1e-5, rtol=1e-5)


# --- dreamt --------------------------------------------------------------------------------------------------


def mortal(bias: float = -2.0, weight: float = 1.0, drops: tuple[float, ...] = (20.0, 40.0, 60.0, 100.0)) -> Agent:
    """A small untrained agent that is hit now and then in its dreams."""
    agent = dreamer("take-cover", end_bias=20.0)  # by the end head alone, every dream would end at once
    memory = MDNRNN(6, 1, 16, 3, end=True, hit=True)
    assert memory.hit_head is not None and memory.end_head is not None
    with torch.no_grad():
        memory.hit_head.bias.fill_(bias)
        memory.end_head.bias.fill_(20.0)
        memory.hit_weight.fill_(weight)
    agent.memory = memory.eval()
    agent.moments = Moments(None, torch.tensor([100.0, 100.0, 50.0, 100.0, 30.0]), torch.tensor(drops))
    return agent


STREAMS = pytest.mark.parametrize("streams", [NumpyStreams, CounterBasedStreams])


@STREAMS
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_dream_loses_what_hits_take_until_nothing_is_left(streams: Any, dropout: float) -> None:
    agent, seeds = mortal(bias=-0.5, weight=3.0), list(range(40))
    dreams = Dreams(agent, 1.0, "health", torch.float32, streams, None, dropout)
    dreams.reset(seeds)
    numbers = streams(seeds, 6, CPU)
    which, _ = numbers.start(5)
    assert agent.moments.health is not None and agent.moments.drops is not None
    health, hits = agent.moments.health[which].double().numpy(), 0
    gone = np.zeros(40, bool)
    for _ in range(60):
        _, ended = dreams.step(torch.zeros(40, 1))
        chance = numbers.next()[2].double().numpy()
        with torch.no_grad():
            logit = agent.memory.heads(dreams.h).hit_logit
        assert logit is not None
        odds = np.exp(logit.double().numpy()) / 3
        likely = odds / (1 + odds)
        # Away from the edges of the table of drops, where rounding could choose the neighbour.
        place = chance / likely * 4
        hit = chance < likely
        clear = ~hit | (np.abs(place - place.round()) > 1e-4)
        assert clear.all()
        health -= np.where(hit, agent.moments.drops.numpy()[np.clip(place.astype(int), 0, 3)], 0.0)
        hits += int(hit.sum())
        assert ended.tolist() == (health <= 0).tolist()
        gone |= health <= 0
    assert hits > 40 and gone.all()


@STREAMS
def test_drops_are_drawn_as_often_as_they_were_recorded(streams: Any) -> None:
    agent = mortal(bias=40.0, drops=(1.0, 2.0, 2.0, 90.0))  # hit at every step
    agent.moments = agent.moments._replace(health=torch.full((5,), 1e6))
    dreams = Dreams(agent, 1.0, "health", torch.float32, streams)
    dreams.reset(range(4000))
    dreams.step(torch.zeros(4000, 1))
    lost = (1e6 - dreams._course[2].squeeze(1)).round()
    for drop, share in ((1.0, 0.25), (2.0, 0.5), (90.0, 0.25)):
        assert (lost == drop).float().mean().item() == pytest.approx(share, abs=0.03)


@STREAMS
def test_fitness_in_dreams_with_a_health_is_what_single_steps_pay(streams: Any) -> None:
    agent, seeds = mortal(), [11, 12, 13, 12]
    controllers = np.random.default_rng(1).standard_normal((60, len(agent.controller)))
    fitness = DreamFitness(LocalExecutor(), agent, 1.0, "health", None, torch.float32, streams)
    found, _ = fitness(controllers, seeds, 60)
    assert 1 < found.min() < found.max() <= 60 and len(np.unique(found)) > 4
    for index in (0, 31, 59):
        dreams = Dreams(agent, 1.0, "health", torch.float32, streams)
        wanted = paid_step_by_step(agent, dreams, controllers[index], seeds, 60)
        np.testing.assert_allclose(found[index], wanted, atol=1e-2)


def test_a_row_that_begins_anew_has_its_health_back() -> None:
    env = DreamVectorEnv(8, mortal(bias=0.0, drops=(60.0,)), termination="health", dtype=torch.float32)
    env.reset(seed=1)
    over = np.zeros(8, bool)
    while not over.all():
        over |= env.step(np.zeros(8, np.int64))[2]
    env.reset(seed=1, options={"reset_mask": np.ones(8, bool)})
    assert (env._dreams._course[2] > 0).all() and not env.step(np.zeros(8, np.int64))[2].all()


def test_the_health_decides_with_a_dream_model_by_what_that_one_predicts() -> None:
    agent, model = mortal(bias=-40.0), mortal(bias=40.0, drops=(1.0,))
    model.starts = agent.starts
    dreams = Dreams(agent, 1.0, "health", torch.float32, None, model)
    dreams.reset(range(50))
    steps = 0
    while not dreams.step(torch.zeros(50, 1))[1].all():
        steps += 1
    assert steps < 100, "hit at every step, for 20 to 100 each"


@pytest.mark.parametrize("lacks", ["drops", "head"])
def test_dreams_cannot_end_by_a_health_that_nothing_is_known_of(lacks: str) -> None:
    agent = mortal() if lacks == "drops" else dreamer("take-cover")
    agent.moments = Moments()
    with pytest.raises(UserError, match="dreams that end by their health need"):
        DreamVectorEnv(1, agent, termination="health")


# --- starts and files ----------------------------------------------------------------------------------------


def test_starts_keep_the_health_at_their_moment_and_drops_are_those_at_full_health(tmp_path: Path) -> None:
    latents = stored(tmp_path, wounding_episodes(), scripted_episodes([20, 27]))
    torch.manual_seed(0)
    memory = MDNRNN(2, 2, 8, 2, reward=True, end=True, hit=True, clock=10)
    agent = Agent(Wounding(), ConvVAE(2), memory, torch.zeros(2 * 11))
    set_starts(agent, latents, (0, 3, 5))
    assert agent.starts is not None and agent.moments.health is not None and agent.moments.steps is not None
    moments = zip(agent.starts[:, 0].float().round().int().tolist(), agent.moments.health.tolist(), strict=True)
    for (seed, step), health in moments:
        assert health == (100.0 if seed >= 20 else health_at(seed, step))
    # At full health, a hit took 7, or all of it where the game ended within two steps.
    dead = sum(ends_by_itself(seed) and length_of(seed) <= 2 for seed in SEEDS)
    assert agent.moments.drops is not None and dead > 0
    assert agent.moments.drops.tolist() == [7.0] * (len(SEEDS) - dead) + [100.0] * dead
    assert latents.health is not None
    calm = torch.full_like(latents.health, 80.0)
    assert len(recorded_drops(replace(latents, health=calm), 100.0)) == 0
    alternating = calm - torch.arange(len(calm)) % 2
    assert set(recorded_drops(replace(latents, health=alternating), 100.0).tolist()) == {1.0}, "none at full health"


def test_an_agents_file_holds_its_hit_head_and_what_hits_take(tmp_path: Path) -> None:
    agent = mortal(weight=7.0)
    agent.save(tmp_path)
    found = load_agent(tmp_path)
    assert found.memory.hit_head is not None and found.memory.hit_weight.item() == 7.0
    for mine, theirs in zip(agent.moments[1:], found.moments[1:], strict=True):
        assert mine is not None and theirs is not None and torch.equal(mine, theirs)
    assert found.moments.steps is None and found.digest() != mortal(weight=7.0, drops=(3.0,)).digest()
    first, second = (DreamVectorEnv(4, one, termination="health", dtype=torch.float32) for one in (agent, found))
    assert np.abs(first.reset(seed=3)[0] - second.reset(seed=3)[0]).max() < 0.01


@pytest.mark.parametrize(
    ("moments", "message"),
    [
        (Moments(None, torch.tensor([100.0, 50.0]), torch.tensor([7.0])), "start_health"),
        (Moments(None, torch.tensor([100.0, 50.0, 1.0, 1.0, float("nan")]), torch.tensor([7.0])), "start_health"),
        (Moments(None, torch.full((5,), 100.0), torch.tensor([7.0, -1.0])), "drops"),
        (Moments(None, torch.full((5,), 100.0), torch.zeros(0)), "drops"),
    ],
)
def test_moments_that_cannot_be_are_refused_when_an_agent_is_loaded(
    moments: Moments, message: str, tmp_path: Path
) -> None:
    agent = mortal()
    agent.moments = moments
    agent.save(tmp_path)
    with pytest.raises(UserError, match=f"expected positive numbers as {message}"):
        load_agent(tmp_path)


def test_an_agent_without_a_hit_head_has_a_file_as_before(tmp_path: Path) -> None:
    agent = dreamer("take-cover")
    agent.save(tmp_path)
    tensors, meta = load_tensors(tmp_path / AGENT_FILE)
    assert "hit" not in meta["memory"] and not {"start_health", "drops"} & tensors.keys()


# --- settings ------------------------------------------------------------------------------------------------


def test_settings_that_need_a_health_are_refused_where_there_is_none() -> None:
    drives = preset("quick", "car-racing").with_settings(**{"memory.hit-weight": 5.0})
    with pytest.raises(UserError, match=r"--memory.hit-weight is for worlds that tell the health, and car-racing does"):
        check_settings(drives, None)
    doom = preset("quick", "take-cover").with_settings(**{"dream.termination": "health"})
    with pytest.raises(UserError, match=r"expected a --memory\.hit-weight above 0"):
        check_settings(doom, None)
    check_settings(doom.with_settings(**{"memory.hit-weight": 5.0}), None)
