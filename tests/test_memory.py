"""M: the network, its loss, and the sequences it is trained on."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from worldmodels.config import MemoryConfig
from worldmodels.errors import UserError
from worldmodels.memory.mdnrnn import MDNRNN, Prediction, Targets, memory_loss
from worldmodels.memory.mixture import Mixture, log_likelihood
from worldmodels.memory.train import SequenceSampler, train_memory
from worldmodels.storage.episodes import EpisodeStore, Flush
from worldmodels.storage.latents import Latents, load_latents, save_latents
from worlds import action_at, ends_by_itself, length_of, reward_at, scripted_episodes


def trainable(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def test_it_has_the_papers_number_of_weights() -> None:
    assert trainable(MDNRNN(32, 3, 256, 5)) == 422_368


def test_reward_and_end_heads_are_one_output_each() -> None:
    memory = MDNRNN(32, 3, 256, 5, reward=True, end=True)
    assert trainable(memory) == 422_368 + 2 * 257
    prediction = memory(torch.zeros(2, 7, 32), torch.zeros(2, 7, 3))
    assert prediction.reward.shape == prediction.end_logit.shape == (2, 7)
    bare = MDNRNN(32, 3)(torch.zeros(2, 7, 32), torch.zeros(2, 7, 3))
    assert bare.reward is None and bare.end_logit is None


def test_stepping_through_a_sequence_gives_the_hidden_states_of_torchs_lstm() -> None:
    torch.manual_seed(0)
    memory = MDNRNN(4, 2, hidden_size=16)
    reference = nn.LSTM(6, 16, batch_first=True)
    with torch.no_grad():
        memory.lstm.bias_ih_l0.normal_()
        for name, value in memory.lstm.named_parameters():
            reference.get_parameter(name).copy_(value)
        z, actions = torch.randn(3, 20, 4), torch.randn(3, 20, 2)
        wanted, (last_h, last_c) = reference(torch.cat([z, actions], -1))
        state = memory.initial_state(3)
        for t in range(20):
            state = memory.step(z[:, t], actions[:, t], state)
            torch.testing.assert_close(state[0], wanted[:, t], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(state[0], last_h[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(state[1], last_c[0], rtol=1e-5, atol=1e-6)
        mixture = memory(z, actions).mixture
        torch.testing.assert_close(memory.heads(state[0]).mixture.means, mixture.means[:, -1])


def test_a_prediction_depends_on_the_past_and_not_on_the_future() -> None:
    torch.manual_seed(0)
    memory, z, actions = MDNRNN(4, 2, 16), torch.randn(1, 6, 4), torch.randn(1, 6, 2)
    before = memory(z, actions).mixture.means
    z[0, 3] += 1
    moved = (memory(z, actions).mixture.means != before).flatten(2).any(-1)[0]
    assert moved.tolist() == [False, False, False, True, True, True]


def certain(z: Tensor, reward: Tensor | None = None, end_logit: Tensor | None = None) -> Prediction:
    """A prediction of exactly z (B, T, Z), with standard deviation 1."""
    means = z.unsqueeze(-1)
    return Prediction(Mixture(torch.zeros_like(means), means, torch.zeros_like(means)), reward, end_logit)


def test_the_likelihood_is_averaged_over_the_steps_that_exist_and_the_dimensions() -> None:
    z, mask = torch.randn(2, 3, 4), torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    prediction = certain(torch.randn(2, 3, 4))
    _, parts = memory_loss(prediction, Targets(z, torch.zeros(2, 3), torch.zeros(2, 3), mask))
    wanted = -log_likelihood(prediction.mixture, z)[mask.bool()].mean()
    assert parts["nll"].item() == pytest.approx(wanted.item(), rel=1e-6)


def test_steps_that_do_not_exist_have_no_influence_at_all() -> None:
    torch.manual_seed(0)
    memory = MDNRNN(4, 2, 8, reward=True, end=True)
    z, actions, mask = torch.randn(2, 5, 4), torch.randn(2, 5, 2), torch.ones(2, 5)
    mask[1, 3:] = 0
    targets = Targets(torch.randn(2, 5, 4), torch.randn(2, 5), torch.zeros(2, 5), mask)
    changed = Targets(targets.z.clone(), targets.rewards.clone(), targets.ends.clone(), mask)
    changed.z[1, 3:], changed.rewards[1, 3:], changed.ends[1, 3:] = 9.0, -7.0, 1.0
    gradients = []
    for one in (targets, changed):
        memory.zero_grad()
        memory_loss(memory(z, actions), one, end_weight=10.0)[0].backward()
        gradients.append([p.grad.clone() for p in memory.parameters() if p.grad is not None])
    for first, second in zip(*gradients, strict=True):
        assert torch.equal(first, second)


def test_rewards_cost_their_squared_error_and_ends_count_by_their_weight() -> None:
    z, mask = torch.zeros(1, 4, 2), torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    reward, logit = torch.tensor([[1.0, 0.0, 2.0, 99.0]]), torch.tensor([[0.0, 2.0, -1.0, 50.0]])
    targets = Targets(z, torch.tensor([[0.0, 0.0, 5.0, 0.0]]), torch.tensor([[0.0, 0.0, 1.0, 0.0]]), mask)
    total, parts = memory_loss(certain(z, reward, logit), targets, end_weight=10.0)
    assert parts["reward"].item() == pytest.approx((1 + 0 + 9) / 3)
    sigmoid = 1 / (1 + np.exp(-logit.double().numpy()[0]))
    ends = [-np.log(1 - sigmoid[0]), -np.log(1 - sigmoid[1]), -10 * np.log(sigmoid[2])]
    assert parts["end"].item() == pytest.approx(sum(ends) / 3, rel=1e-6)
    assert total.item() == pytest.approx(sum(part.item() for part in parts.values()))


def latents_of(flush: Flush) -> Latents:
    """Each frame's z is (seed, step), read off the frame itself, with hardly any variance."""
    mu = torch.from_numpy(flush.frames(0, flush.num_frames)[:, 0, 0, :2].astype(np.float32)).half()
    small = [torch.from_numpy(part) for part in (flush.actions, flush.rewards, flush.terminated, flush.lengths)]
    return Latents(mu, torch.full_like(mu, -60.0), *small)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Latents:
    """Latents of two flushes of scripted episodes, after a round trip through both stores."""
    store, folder = EpisodeStore(tmp_path_factory.mktemp("episodes")), tmp_path_factory.mktemp("latents")
    for index, seeds in enumerate((range(3, 11), range(20, 26))):
        store.write(index, scripted_episodes(seeds))
    flushes = store.flushes()
    for index, flush in enumerate(flushes):
        save_latents(folder, index, latents_of(flush), "V")
    return load_latents(folder, len(flushes), "V")


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


def test_following_gives_the_state_after_each_rows_own_length() -> None:
    torch.manual_seed(0)
    memory, z, actions = MDNRNN(4, 2, 16), torch.randn(3, 6, 4), torch.randn(3, 6, 2)
    h, c = memory.follow(z, actions, torch.tensor([6, 0, 2]))
    assert (h[1] == 0).all() and (c[1] == 0).all()
    for row, length in ((0, 6), (2, 2)):
        state = memory.initial_state(1)
        for t in range(length):
            state = memory.step(z[row : row + 1, t], actions[row : row + 1, t], state)
        torch.testing.assert_close((h[row : row + 1], c[row : row + 1]), state, atol=1e-5, rtol=1e-5)
    whole = memory(z[:1], actions[:1]).mixture.means[:, 3:]
    rest = memory(z[:1, 3:], actions[:1, 3:], memory.follow(z[:1, :3], actions[:1, :3], torch.tensor([3])))
    torch.testing.assert_close(rest.mixture.means, whole, atol=1e-5, rtol=1e-5)


def test_a_store_without_transitions_is_refused() -> None:
    empty = torch.zeros(1, 2)
    latents = Latents(
        empty.half(), empty.half(), torch.zeros(0, 2), torch.zeros(0), torch.zeros(1, dtype=torch.uint8),
        torch.zeros(1, dtype=torch.int64),
    )  # fmt: skip
    with pytest.raises(UserError, match="no transitions"):
        SequenceSampler(latents, 4, 10, seed=1)


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
    before = train_memory(memory, small, config, 1, torch.device("cpu"), tmp_path / "before")
    config = MemoryConfig(steps=60, batch=8, length=6, lr=1e-2)
    after = train_memory(memory, small, config, 1, torch.device("cpu"), tmp_path / "after")
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
        config, device = MemoryConfig(steps=8, batch=8, length=6), torch.device("cpu")
        losses.append(train_memory(memory, paid, config, 1, device, tmp_path / str(scale), scale))
        memories.append(memory)
    assert losses[0] == losses[1]
    for (name, one), other in zip(memories[0].state_dict().items(), memories[1].state_dict().values(), strict=True):
        torch.testing.assert_close(one * (1024 if name.startswith("reward_head") else 1), other, rtol=0, atol=0)
