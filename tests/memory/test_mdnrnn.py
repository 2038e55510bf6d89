"""M: the network and its loss."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from worldmodels.memory.mdnrnn import MDNRNN, Prediction, Targets, memory_loss
from worldmodels.memory.mixture import Mixture, log_likelihood


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_following_many_rows_gives_what_following_each_alone_in_float64_gives(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    memory, z, actions = MDNRNN(4, 2, 16, clock=10), torch.randn(6, 30, 4), torch.randn(6, 30, 2)
    lengths, steps = torch.tensor([30, 0, 2, 17, 17, 1]), torch.tensor([0, 5, 40, 3, 3, 8])
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        found = memory.follow(z, actions, lengths, None, steps)
    exact = copy.deepcopy(memory).double()
    for row, length in enumerate(lengths.tolist()):
        state = exact.initial_state(1)
        for t in range(length):
            inputs = (one[row : row + 1, t].double() for one in (z, actions))
            state = exact.step(*inputs, state, steps[row : row + 1] + t)
        for part, wanted in zip(found, state, strict=True):
            assert part.dtype is torch.float32
            close = 1e-6 if dtype is torch.float32 else 0.01
            np.testing.assert_allclose(part[row].double(), wanted[0].detach(), atol=close)


def test_the_mask_head_reads_z_alone_and_costs_its_cross_entropy_per_control() -> None:
    torch.manual_seed(0)
    memory = MDNRNN(4, 2, 8, mask_size=3)
    z, exists = torch.randn(2, 5, 4), torch.ones(2, 5)
    exists[1, 2:] = 0
    action_mask = (torch.rand(2, 5, 3) > 0.5).float()
    logits = memory.mask_logits(z)
    assert logits.shape == (2, 5, 3) and logits.dtype == torch.float32
    prediction = memory(z, torch.randn(2, 5, 2))
    targets = Targets(torch.randn(2, 5, 4), torch.zeros(2, 5), torch.zeros(2, 5), exists, action_mask)
    total, parts = memory_loss(prediction, targets, 1.0, logits)
    may = 1 / (1 + np.exp(-logits.detach().double().numpy()))
    wanted = -np.log(np.where(action_mask.numpy() == 1, may, 1 - may)).mean(axis=-1)[exists.numpy() == 1].mean()
    assert list(parts) == ["nll", "mask"] and parts["mask"].item() == pytest.approx(wanted, rel=1e-5)
    assert total.item() == pytest.approx(parts["nll"].item() + parts["mask"].item(), rel=1e-6)
    assert memory_loss(prediction, targets)[1].keys() == {"nll"}


def test_the_end_head_without_the_weight_of_ends_gives_their_probability() -> None:
    memory = MDNRNN(4, 2, 8, end=True)
    memory.end_weight.fill_(10.0)
    # An end that comes once in 5 steps and counts 10 times looks like odds of 10 : 4.
    logit = torch.tensor([10 / 4]).log()
    assert torch.sigmoid(memory.unweighted_end_logit(logit)).item() == pytest.approx(0.2, rel=1e-5)
