"""V and M hold out the same episodes, do not learn from them, and keep the weights that are best there."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dream_agents import CPU
from stopped_training import assert_same_bits, stop_in_the_fifth_step
from worldmodels.core.held_out import held_out_episodes
from worldmodels.data.episodes import EpisodeStore, Shard
from worldmodels.memory.config import MemoryConfig
from worldmodels.memory.latents import Latents
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.memory.train import SequenceSampler, train_memory
from worldmodels.vision import train as vision_train
from worldmodels.vision.config import VisionConfig
from worldmodels.vision.train import FrameStream, train_vision
from worlds import length_of, scripted_episodes

SEEDS = range(3, 250)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Shard]:
    """Two shards; every frame shows the seed and the step of its episode."""
    store = EpisodeStore(tmp_path_factory.mktemp("episodes"))
    store.write(0, scripted_episodes(SEEDS[:120]))
    store.write(1, scripted_episodes(SEEDS[120:]))
    return store.shards()


@pytest.fixture(scope="module")
def latents(shards: Sequence[Shard]) -> Latents:
    """Each frame's z is its (seed, step)."""
    mu = np.concatenate([shard.frames(0, shard.num_frames)[:, 0, 0, :2] for shard in shards]).astype(np.float32)
    names = ("actions", "rewards", "terminated", "lengths")
    small = [torch.from_numpy(np.concatenate([getattr(shard, name) for shard in shards])) for name in names]
    return Latents(torch.from_numpy(mu).half(), torch.full(mu.shape, -60.0).half(), *small)


def seeds_of(chosen: np.ndarray) -> set[int]:
    return {seed for seed, one in zip(SEEDS, chosen.tolist(), strict=True) if one}


def test_no_frame_of_an_episode_that_is_held_out_is_drawn(shards: list[Shard]) -> None:
    chosen = held_out_episodes(len(SEEDS), 0.05, 3)
    stream = FrameStream(shards, 16, 4, 1, True, chosen)
    drawn = stream.batches(0)
    epoch = np.concatenate([next(drawn).numpy() for _ in range(stream.batches_per_epoch)])
    assert not {int(seed) for seed in epoch[:, 0, 0, 0]} & seeds_of(chosen)
    aside = stream.load(stream.held_out)[:, 0, 0, :2]
    wanted = {(seed, step) for seed in seeds_of(chosen) for step in range(length_of(seed) + 1)}
    assert {(int(seed), int(step)) for seed, step in aside} == wanted and len(aside) == len(wanted)


def test_no_sequence_of_an_episode_that_is_held_out_is_drawn_and_all_others_are(latents: Latents) -> None:
    chosen = held_out_episodes(len(SEEDS), 0.1, 3)
    for which in (chosen, ~chosen):
        sampler = SequenceSampler(latents, 200, 4, 1, 3, chosen=which)
        seen = {int(seed) for step in range(40) for seed in sampler.batch(step)[0][:, 0, 0].round()}
        assert seen == seeds_of(which)


def noted(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The episodes that samplers of M are restricted to."""
    found: list[np.ndarray] = []
    original = SequenceSampler.__init__

    def noting(sampler: SequenceSampler, *arguments: Any, **options: Any) -> None:
        found.append(arguments[-1])
        original(sampler, *arguments, **options)

    monkeypatch.setattr(SequenceSampler, "__init__", noting)
    return found


def test_m_holds_out_the_episodes_of_the_runs_seed_whatever_its_own_seed_is(
    latents: Latents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = noted(monkeypatch)
    config = MemoryConfig(steps=2, batch=4, length=4, held_out=0.1)
    for number, seed in enumerate((1, 77)):
        memory = MDNRNN(2, 2, 8, 2)
        train_memory(memory, latents, config, seed, CPU, tmp_path / str(number), held_out_seed=3)
    chosen = held_out_episodes(len(SEEDS), 0.1, 3)
    for training, aside in (found[:2], found[2:]):
        assert (training == ~chosen).all() and (aside == chosen).all()


def rows(directory: Path) -> list[dict[str, str]]:
    with open(directory / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def small_memory() -> MDNRNN:
    torch.manual_seed(0)
    return MDNRNN(2, 2, 16, 2, reward=True, end=True)


def test_ms_losses_on_held_out_episodes_are_logged_and_returned(latents: Latents, tmp_path: Path) -> None:
    small = Latents(latents.mu / 128, *list(vars(latents).values())[1:3], latents.rewards / 128,
                    latents.terminated, latents.lengths)  # fmt: skip
    config = MemoryConfig(steps=120, batch=8, length=6, lr=1e-2, held_out=0.2)
    found = train_memory(small_memory(), small, config, 1, CPU, tmp_path)
    names = ("nll", "reward", "end")
    assert set(found) == {*names, *(f"held_out_{name}" for name in names)}
    table = {int(row["step"]): row for row in rows(tmp_path)}
    measured = {step: row for step, row in table.items() if row["held_out_loss"]}
    assert set(measured) == {100, 120} and float(table[120]["held_out_nll"]) < float(table[20]["nll"])
    best = min(measured.values(), key=lambda row: float(row["held_out_loss"]))
    for name in names:
        assert found[f"held_out_{name}"] == pytest.approx(float(best[f"held_out_{name}"]), rel=1e-5)


def test_the_memory_that_overfits_is_not_the_one_that_is_kept(tmp_path: Path) -> None:
    """Rewards are pure chance: M can learn only those of the episodes that it sees."""
    stream, lengths = torch.Generator().manual_seed(3), torch.full((8,), 6)
    mu = torch.randn(56, 4, generator=stream).half()
    nothing = torch.zeros(48, 1)
    ends, rewards = torch.zeros(8, dtype=torch.uint8), 2 * torch.randn(48, generator=stream)
    latents = Latents(mu, torch.full_like(mu, -60.0), nothing, rewards, ends, lengths)
    losses = {}
    for share in (0.0, 0.25):
        torch.manual_seed(0)
        memory = MDNRNN(4, 1, 48, 1, reward=True)
        config = MemoryConfig(steps=400, batch=16, length=6, lr=2e-2, held_out=share)
        train_memory(memory, latents, config, 1, CPU, tmp_path / str(share))
        aside = torch.from_numpy(held_out_episodes(8, 0.25, 0))
        z, reward = mu.reshape(8, 7, 4)[aside, :-1].float(), rewards.reshape(8, 6)[aside]
        with torch.no_grad():
            losses[share] = (memory(z, torch.zeros(*reward.shape, 1)).reward - reward).square().mean().item()
    table = [row for row in rows(tmp_path / "0.25") if row["held_out_loss"]]
    last, best = float(table[-1]["held_out_loss"]), min(float(row["held_out_loss"]) for row in table)
    assert best < last, "by then it knows what it learnt by heart"
    assert losses[0.0] < 0.5 * losses[0.25], "what is held out is not learnt"


def test_a_training_that_holds_out_and_was_stopped_goes_on_to_the_same_bits(
    latents: Latents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = MemoryConfig(steps=8, batch=4, length=5, burn_in=2, held_out=0.2, dropout=0.2)
    wanted = small_memory()
    measured = train_memory(wanted, latents, config, 1, CPU, tmp_path / "whole", 4.0)
    stop_in_the_fifth_step(
        monkeypatch, lambda: train_memory(small_memory(), latents, config, 1, CPU, tmp_path / "cut", 4.0)
    )
    found = small_memory()
    assert train_memory(found, latents, config, 1, CPU, tmp_path / "cut", 4.0) == measured
    assert_same_bits(found, wanted)


def test_v_is_measured_on_held_out_episodes_while_it_learns(
    shards: list[Shard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vision_train, "_CHECKED_EVERY", 3)
    config = VisionConfig(model="patch-vae", latent_size=4, epochs=1.0, batch=32, window=4, held_out=0.05)
    vision, metrics = train_vision(shards, config, 1, CPU, tmp_path / "held", held_out_seed=3)
    table = [row for row in rows(tmp_path / "held") if row["held_out_loss"]]
    assert len(table) > 2 and float(table[-1]["held_out_loss"]) < float(table[0]["held_out_loss"])
    assert set(metrics) == {"held_out_reconstruction", "held_out_kl"}
    again, same = train_vision(shards, config, 1, CPU, tmp_path / "held", held_out_seed=3)
    assert same == metrics
    for name, value in vision.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    plain = VisionConfig(model="patch-vae", latent_size=4, epochs=0.1, batch=32, window=4)
    train_vision(shards, plain, 1, CPU, tmp_path / "plain")
    assert not any(name.startswith("held_out") for name in rows(tmp_path / "plain")[0])
