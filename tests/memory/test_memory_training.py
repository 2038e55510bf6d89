"""The sequences that M is trained on, and its training."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from stopped_training import assert_same_bits, stop_in_the_fifth_step
from worldmodels.core.device import fast_bfloat16, generator, torch_threads
from worldmodels.core.errors import UserError
from worldmodels.core.seeds import Stream
from worldmodels.data.episodes import EpisodeStore, Shard
from worldmodels.data.latents import load_latents, save_latents
from worldmodels.memory.config import MemoryConfig
from worldmodels.memory.dropout import dropout_mask
from worldmodels.memory.latents import Latents
from worldmodels.memory.mdnrnn import MDNRNN, memory_loss
from worldmodels.memory.mixture import log_likelihood
from worldmodels.memory.train import MemoryLoss, SequenceSampler, train_memory
from worlds import action_at, ends_by_itself, length_of, reward_at, scripted_episodes

CPU = torch.device("cpu")
SETTINGS = MemoryConfig(steps=8, batch=4, length=5, burn_in=2)


def latents_of(shard: Shard) -> Latents:
    """Each frame's z is (seed, step), read off the frame itself, with hardly any variance."""
    mu = torch.from_numpy(shard.frames(0, shard.num_frames)[:, 0, 0, :2].astype(np.float32)).half()
    small = [torch.from_numpy(part) for part in (shard.actions, shard.rewards, shard.terminated, shard.lengths)]
    return Latents(mu, torch.full_like(mu, -60.0), *small)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Latents:
    """Latents of two shards of scripted episodes, after a round trip through both stores."""
    store, folder = EpisodeStore(tmp_path_factory.mktemp("episodes")), tmp_path_factory.mktemp("latents")
    for index, seeds in enumerate((range(3, 11), range(20, 26))):
        store.write(index, scripted_episodes(seeds))
    shards = store.shards()
    for index, shard in enumerate(shards):
        save_latents(folder, index, latents_of(shard), "V")
    return load_latents(folder, len(shards), "V")


@pytest.mark.parametrize("length", [1, 3, 200])
def test_sequences_are_aligned_to_the_step(stored: Latents, length: int) -> None:
    sampler = SequenceSampler(stored, batch=64, length=length, seed=1)
    assert sampler.length == min(length, 8)
    seen = set()
    for step in range(8):
        z, actions, targets = sampler.batch(step)
        assert z.shape == targets.z.shape == (64, sampler.length, 2) and actions.shape == (64, sampler.length, 2)
        exists = targets.mask == 1
        assert exists[:, 0].all() and (targets.mask.diff(dim=1) <= 0).all()  # only the tail may be missing
        for b, t in exists.nonzero().tolist():
            seed, now = z[b, t].round().int().tolist()
            assert seed == round(z[b, 0, 0].item()), "a window crossed an episode"
            assert targets.z[b, t].round().tolist() == [seed, now + 1]
            assert actions[b, t].tolist() == (2 * action_at(seed, now)).tolist()
            assert targets.rewards[b, t].item() == reward_at(seed, now)
            last = now == length_of(seed) - 1
            assert targets.ends[b, t].item() == (last and ends_by_itself(seed))
            seen.add((seed, now))
        full = exists.sum(1) == sampler.length
        short = [length_of(round(z[b, 0, 0].item())) < sampler.length for b in (~full).nonzero()[:, 0]]
        assert all(short), "a window reaches over the end of an episode that has room for it"
    wanted = {(seed, t) for seed in (*range(3, 11), *range(20, 26)) for t in range(length_of(seed))}
    assert seen == wanted, "some transitions, perhaps final ones, are never trained on"


def test_first_and_last_transitions_are_as_common_as_others(stored: Latents) -> None:
    sampler = SequenceSampler(stored, batch=6000, length=3, seed=1)
    longest = max((length_of(seed), seed) for seed in (*range(3, 11), *range(20, 26)))
    counts = np.zeros(longest[0])
    for step in range(10):
        z, _, targets = sampler.batch(step)
        seeds, now = z.round().long().unbind(-1)
        chosen = now[(targets.mask > 0) & (seeds == longest[1])]
        counts += np.bincount(chosen.numpy(), minlength=longest[0])
    # Sequences moved inside cover what lies near an edge up to twice; the edges themselves are as common as the middle.
    assert counts.max() < 2.2 * counts.min()
    assert min(counts[0], counts[-1]) > 0.7 * counts.mean()


def test_a_batch_depends_on_the_seed_and_the_step_alone(stored: Latents) -> None:
    sampler = SequenceSampler(stored, 8, 5, seed=1)
    stream = sampler.batches(0)
    drawn = [next(stream)[0] for _ in range(4)]
    again, _ = next(SequenceSampler(stored, 8, 5, seed=1).batches(3))
    for first, second in ((drawn[3], again), (drawn[1], sampler.batch(1))):
        assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
        assert all(torch.equal(a, b) for a, b in zip(first[2][:4], second[2][:4], strict=True))
    other = SequenceSampler(stored, 8, 5, seed=2).batch(3)
    assert not torch.equal(again[0], other[0]) and not torch.equal(again[0], drawn[2][0])


def test_z_is_drawn_anew_with_the_posteriors_deviation_and_shared_by_input_and_target(stored: Latents) -> None:
    wide = Latents(
        torch.zeros_like(stored.mu), torch.full_like(stored.logvar, 2 * np.log(3)), stored.actions,
        stored.rewards, stored.terminated, stored.lengths,
    )  # fmt: skip
    sampler = SequenceSampler(wide, batch=3000, length=2, seed=1)
    z, _, targets = sampler.batch(0)
    assert z.std().item() == pytest.approx(3, rel=0.03)
    assert torch.equal(z[:, 1], targets.z[:, 0])
    assert not torch.equal(z, sampler.batch(1)[0])


@pytest.mark.parametrize("burn_in", [1, 3, 100])
def test_what_led_to_a_sequence_ends_where_the_sequence_begins(stored: Latents, burn_in: int) -> None:
    sampler = SequenceSampler(stored, batch=64, length=2, seed=1, burn_in=burn_in)
    (z, _, _), before = next(sampler.batches(5))
    assert before is not None
    for b, length in enumerate(before.lengths.tolist()):
        seed, now = z[b, 0].round().int().tolist()
        assert length == min(now, burn_in)
        for t in range(length):
            assert before.z[b, t].round().tolist() == [seed, now - length + t]
            assert before.actions[b, t].tolist() == (2 * action_at(seed, now - length + t)).tolist()
    assert next(SequenceSampler(stored, 64, 2, 1).batches(5))[1] is None


def test_a_store_without_transitions_is_refused() -> None:
    empty = torch.zeros(1, 2)
    latents = Latents(
        empty.half(), empty.half(), torch.zeros(0, 2), torch.zeros(0), torch.zeros(1, dtype=torch.uint8),
        torch.zeros(1, dtype=torch.int64),
    )  # fmt: skip
    with pytest.raises(UserError, match="no transitions"):
        SequenceSampler(latents, 4, 10, seed=1)


def test_frames_that_show_nothing_are_no_targets_but_ends_and_rewards_are_learnt_there(stored: Latents) -> None:
    sampler, plain = (SequenceSampler(stored, 64, 5, 1, shows_end=shows_end) for shows_end in (False, True))
    (z, actions, targets), (other_z, _, others) = sampler.batch(2), plain.batch(2)
    assert targets.pictures is not None and others.pictures is None and torch.equal(z, other_z)
    assert torch.equal(targets.pictures, 1 - targets.ends) and targets.ends.sum() > 3
    memory = small_memory()
    changed = targets._replace(z=torch.where(targets.pictures[..., None] == 1, targets.z, 99.0))
    gradients = []
    for one in (targets, changed):
        memory.zero_grad()
        memory_loss(memory(z, actions), one)[0].backward()
        gradients.append([weight.grad.clone() for weight in memory.parameters() if weight.grad is not None])
    assert all(torch.equal(first, second) for first, second in zip(*gradients, strict=True))
    prediction = memory(z, actions)
    (_, parts), (_, whole) = (memory_loss(prediction, one) for one in (targets, others))
    assert torch.equal(parts["end"], whole["end"]) and torch.equal(parts["reward"], whole["reward"])
    real = (targets.mask * targets.pictures).bool()
    wanted = -log_likelihood(prediction.mixture, targets.z)[real].mean()
    assert parts["nll"].item() == pytest.approx(wanted.item(), rel=1e-5)


def test_latents_of_another_v_are_refused(stored: Latents, tmp_path: Path) -> None:
    save_latents(tmp_path, 0, stored, "V1")
    with pytest.raises(UserError, match="another V"):
        load_latents(tmp_path, 1, "V2")


def test_training_lowers_every_part_of_the_loss(stored: Latents, tmp_path: Path) -> None:
    small = Latents(
        stored.mu / 16, stored.logvar, stored.actions, stored.rewards / 16, stored.terminated, stored.lengths
    )
    torch.manual_seed(0)
    memory = MDNRNN(2, 2, 16, 2, reward=True, end=True)
    config = MemoryConfig(steps=0, batch=8, length=6, lr=1e-2)
    before = train_memory(memory, small, config, 1, CPU, tmp_path / "before")
    config = MemoryConfig(steps=60, batch=8, length=6, lr=1e-2)
    after = train_memory(memory, small, config, 1, CPU, tmp_path / "after")
    assert set(after) == {"nll", "reward", "end"}
    assert after["nll"] < before["nll"] - 0.5 and after["reward"] < 0.5 * before["reward"]
    assert after["end"] < before["end"]
    assert memory.lstm.bias_hh_l0.abs().max() == 0, "the second bias is no weight"


def test_rewards_in_a_unit_of_their_own_are_learnt_alike_and_said_in_the_worlds(
    stored: Latents, tmp_path: Path
) -> None:
    memories, losses = [], []
    for scale in (1.0, 1024.0):
        torch.manual_seed(0)
        memory = MDNRNN(2, 2, 16, 2, reward=True)
        memory.scale_reward(scale)
        paid = dataclasses.replace(stored, rewards=stored.rewards * scale)
        config = MemoryConfig(steps=8, batch=8, length=6)
        losses.append(train_memory(memory, paid, config, 1, CPU, tmp_path / str(scale), scale))
        memories.append(memory)
    assert losses[0] == losses[1]
    for (name, one), other in zip(memories[0].state_dict().items(), memories[1].state_dict().values(), strict=True):
        torch.testing.assert_close(one * (1024 if name.startswith("reward_head") else 1), other, rtol=0, atol=0)


@pytest.mark.parametrize("batch", [7, 8, 1])
@pytest.mark.parametrize("dropout", [0.0, 0.25])
@pytest.mark.parametrize("burn_in", [0, 4])
def test_the_loss_in_halves_is_that_of_the_whole_batch(
    batch: int, dropout: float, burn_in: int, stored: Latents
) -> None:
    # Rows of all lengths, ends whose frames show nothing, and a health that is not always known.
    health = torch.where(torch.arange(len(stored.mu)) % 5 == 0, torch.nan, -torch.arange(len(stored.mu)).float())
    latents = dataclasses.replace(stored, health=health)
    config = MemoryConfig(batch=batch, length=5, burn_in=burn_in, dropout=dropout, hit_weight=3.0, end_weight=4.0)
    torch.manual_seed(0)
    memory = MDNRNN(2, 2, 16, 2, reward=True, end=True, clock=20, hit=True)
    weights = [weight for weight in memory.parameters() if weight.requires_grad]
    sampler = SequenceSampler(latents, batch, 5, 1, burn_in, shows_end=False)
    loss = MemoryLoss(memory, sampler, config, 1, CPU)
    for step, sequences in zip(range(3), sampler.batches(0), strict=False):
        mask = None
        if dropout:
            drawn = torch.rand(batch, 18, generator=generator(1, Stream.MEMORY_DROPOUT, step))
            mask = dropout_mask(drawn, dropout)
        losses = (loss.training(sequences, step), loss.whole(sequences, sampler.steps(step), mask))
        (total, parts), (wanted, wanted_parts) = losses
        rtol = 3e-2 if fast_bfloat16(CPU) else 1e-5  # products in bfloat16 round their sums over the rows
        torch.testing.assert_close(total, wanted, rtol=rtol, atol=1e-5)
        torch.testing.assert_close(parts, wanted_parts, rtol=rtol, atol=1e-5)
        for one, other in zip(*(torch.autograd.grad(each, weights) for each in (total, wanted)), strict=True):
            torch.testing.assert_close(one, other, rtol=rtol, atol=1e-5 + rtol * other.abs().max().item())


def test_training_has_the_same_bits_with_one_thread_and_with_two(stored: Latents, tmp_path: Path) -> None:
    memories = [small_memory() for _ in range(2)]
    for threads, memory in enumerate(memories, 1):
        with torch_threads(threads):
            train_memory(memory, stored, SETTINGS, 1, CPU, tmp_path / str(threads))
    assert_same_bits(*memories)


def small_memory() -> MDNRNN:
    torch.manual_seed(0)
    return MDNRNN(2, 2, 16, 2, reward=True, end=True)


def test_a_training_that_was_stopped_goes_on_to_the_same_bits(
    stored: Latents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = small_memory()
    measured = train_memory(wanted, stored, SETTINGS, 1, CPU, tmp_path / "whole", 4.0)
    stop_in_the_fifth_step(
        monkeypatch, lambda: train_memory(small_memory(), stored, SETTINGS, 1, CPU, tmp_path / "cut", 4.0)
    )
    found = small_memory()
    # How many further Ms there are is no matter.
    more = dataclasses.replace(SETTINGS, dream_models=2)
    assert train_memory(found, stored, more, 1, CPU, tmp_path / "cut", 4.0) == measured
    assert_same_bits(found, wanted)


@pytest.mark.parametrize("change", ["seed", "settings", "identity"])
def test_a_training_does_not_go_on_from_the_checkpoint_of_another(change: str, stored: Latents, tmp_path: Path) -> None:
    train_memory(small_memory(), stored, SETTINGS, 1, CPU, tmp_path, identity="A")
    seed = 2 if change == "seed" else 1
    settings = dataclasses.replace(SETTINGS, clip=2.0) if change == "settings" else SETTINGS
    with pytest.raises(UserError, match="does not belong to this stage"):
        identity = "B" if change == "identity" else "A"
        train_memory(small_memory(), stored, settings, seed, CPU, tmp_path, identity=identity)
