"""Dropout of M: one mask for all steps of a sequence, for z and for h, and for nothing else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stopped_training import assert_same_bits, stop_in_the_fifth_step
from worldmodels.memory import dropout, train
from worldmodels.memory.config import MemoryConfig
from worldmodels.memory.dropout import dropout_mask, masked_sequence
from worldmodels.memory.latents import Latents
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.memory.packed import PackedMemory
from worldmodels.memory.train import train_memory

CPU = torch.device("cpu")
Z, A, H = 4, 2, 16


def memory_with(**options: Any) -> MDNRNN:
    torch.manual_seed(0)
    memory = MDNRNN(Z, A, H, 2, end=True, **options)
    with torch.no_grad():
        memory.lstm.bias_ih_l0.normal_()
    return memory


def mask_for(rows: int, rate: float = 0.5) -> Tensor:
    return dropout_mask(torch.rand(rows, Z + H, generator=torch.Generator().manual_seed(7)), rate)


def by_hand(memory: MDNRNN, z: Tensor, actions: Tensor, mask: Tensor) -> np.ndarray:
    """h (T, H) along one sequence z (T, Z) and actions (T, A), in float64, with a mask (Z+H,)."""
    from_inputs, from_state, bias, _ = (one.detach().double().numpy() for one in memory.lstm.parameters())
    own = mask.double().numpy()
    h, c, found = np.zeros(H), np.zeros(H), []
    for step, (seen, action) in enumerate(zip(z.double().numpy(), actions.double().numpy(), strict=True)):
        first = [float(step == 0)] if memory.restart else []
        gates = from_inputs @ np.concatenate([seen * own[:Z], action, first]) + from_state @ (h * own[Z:]) + bias
        i, f, o = (1 / (1 + np.exp(-gates[place * H : (place + 1) * H])) for place in (0, 1, 3))
        c = f * c + i * np.tanh(gates[2 * H : 3 * H])
        h = o * np.tanh(c)
        found.append(h)
    return np.array(found)


def test_a_mask_drops_its_share_and_keeps_the_mean() -> None:
    mask = dropout_mask(torch.rand(100_000, generator=torch.Generator().manual_seed(1)), 0.2)
    assert sorted(set(mask.tolist())) == pytest.approx([0.0, 1.25])
    assert (mask == 0).float().mean().item() == pytest.approx(0.2, abs=0.005)
    assert (dropout_mask(torch.rand(50), 0.0) == 1).all()


@pytest.mark.parametrize("restart", [False, True])
def test_a_sequence_is_the_lstms_with_z_and_h_masked_at_every_step(restart: bool) -> None:
    memory, mask = memory_with(restart=restart), mask_for(3)
    z, actions = torch.randn(3, 20, Z), torch.randn(3, 20, A)
    prediction = memory(z, actions, None, mask)
    for row in range(3):
        hidden = torch.from_numpy(by_hand(memory, z[row], actions[row], mask[row])).float()
        wanted = memory.heads(hidden)
        torch.testing.assert_close(prediction.mixture.means[row], wanted.mixture.means, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(prediction.end_logit[row], wanted.end_logit, atol=1e-5, rtol=1e-5)


def test_a_mask_of_ones_changes_neither_predictions_nor_gradients() -> None:
    memory, z, actions = memory_with(restart=True), torch.randn(3, 9, Z), torch.randn(3, 9, A)
    gradients = []
    for mask in (None, torch.ones(3, Z + H)):
        memory.zero_grad()
        prediction = memory(z, actions, None, mask)
        (prediction.mixture.means.square().sum() + prediction.end_logit.sum()).backward()
        gradients.append({name: one.grad.clone() for name, one in memory.named_parameters() if one.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, one in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], one, atol=1e-4, rtol=1e-4)


def test_gradients_through_a_mask_are_those_of_autograd_in_float64() -> None:
    rows, steps, inputs = 3, 7, Z + A
    draw = torch.Generator().manual_seed(3)
    shapes = [(4 * H, inputs), (4 * H, H), (4 * H,), (rows, steps, inputs), (rows, H), (rows, H)]
    tensors = [0.5 * torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes]
    mask, weights = mask_for(rows)[:, Z:], torch.randn(rows, steps, H, generator=draw, dtype=torch.float64)

    def plain(from_inputs: Tensor, from_state: Tensor, bias: Tensor, x: Tensor, h: Tensor, c: Tensor) -> Tensor:
        found = []
        for step in range(steps):
            gates = x[:, step] @ from_inputs.t() + (h * mask.double()) @ from_state.t() + bias
            i, f, g, o = gates.chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            found.append(h)
        return torch.stack(found, dim=1)

    exact = [one.clone().requires_grad_() for one in tensors]
    wanted = torch.autograd.grad((plain(*exact) * weights).sum(), exact)
    ours = [one.float().requires_grad_() for one in tensors]
    hidden = masked_sequence(ours[:3], ours[3], (ours[4], ours[5]), mask)
    found = torch.autograd.grad((hidden * weights.float()).sum(), ours)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_following_with_a_mask_gives_the_state_after_each_rows_own_length(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dropout, "_STEPS_AT_ONCE", at_once)
    memory, mask = memory_with(restart=True), mask_for(4)
    z, actions, lengths = torch.randn(4, 8, Z), torch.randn(4, 8, A), torch.tensor([5, 0, 8, 5])
    h, c = memory.follow(z, actions, lengths, mask)
    assert (h[1] == 0).all() and (c[1] == 0).all()
    for row in (0, 2, 3):
        wanted = by_hand(memory, z[row], actions[row], mask[row])[lengths[row] - 1]
        np.testing.assert_allclose(h[row].numpy(), wanted, atol=1e-5)
    whole = memory(z[2:3], actions[2:3], None, mask[2:3]).mixture.means[:, 5:]
    before = memory.follow(z[2:3, :5], actions[2:3, :5], torch.tensor([5]), mask[2:3])
    rest = memory(z[2:3, 5:], actions[2:3, 5:], before, mask[2:3]).mixture.means
    torch.testing.assert_close(rest, whole, atol=1e-5, rtol=1e-5)


def test_the_packed_memory_masks_as_m_does() -> None:
    memory, mask = memory_with(restart=True), mask_for(3)
    packed, state = PackedMemory(memory), memory.initial_state(3)
    z, actions = torch.randn(3, 6, Z), torch.randn(3, 6, A)
    for step in range(6):
        state = packed.step(z[:, step], actions[:, step], state, mask)
    for row in range(3):
        np.testing.assert_allclose(state[0][row], by_hand(memory, z[row], actions[row], mask[row])[-1], atol=1e-5)


# --- training ------------------------------------------------------------------------------------------------


def some_latents() -> Latents:
    """Four episodes of 3 to 9 steps."""
    stream, lengths = torch.Generator().manual_seed(3), torch.tensor([3, 9, 6, 5])
    frames, steps = int((lengths + 1).sum()), int(lengths.sum())
    mu = torch.randn(frames, Z, generator=stream).half()
    actions, rewards = torch.randn(steps, A, generator=stream), torch.randn(steps, generator=stream)
    ends = torch.tensor([1, 0, 1, 1], dtype=torch.uint8)
    return Latents(mu, torch.full_like(mu, -4.0), actions, rewards, ends, lengths)


SETTINGS = MemoryConfig(steps=8, batch=6, length=4, burn_in=3, dropout=0.4)


def test_a_sequence_and_what_led_to_it_have_one_mask_and_every_step_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed: list[Tensor | None] = []
    learnt: list[Tensor | None] = []
    follow, hidden_states = MDNRNN.follow, MDNRNN.hidden_states

    def following(memory: MDNRNN, z: Tensor, actions: Tensor, lengths: Tensor, mask: Tensor | None, *more: Any) -> Any:
        followed.append(mask)
        return follow(memory, z, actions, lengths, mask, *more)

    def learning(memory: MDNRNN, z: Tensor, actions: Tensor, state: Any, mask: Tensor | None, *more: Any) -> Any:
        learnt.append(mask)
        return hidden_states(memory, z, actions, state, mask, *more)

    monkeypatch.setattr(MDNRNN, "follow", following)
    monkeypatch.setattr(MDNRNN, "hidden_states", learning)
    train_memory(memory_with(), some_latents(), SETTINGS, 1, CPU, tmp_path)
    # Each of the 8 batches of 6 sequences is computed in halves.
    masks = [one for one in learnt[:16] if one is not None]
    assert len(masks) == 16 and all(one.shape == (3, Z + H) for one in masks)
    assert len({tuple(row.tolist()) for one in masks for row in one}) == 48, "every sequence has its own mask"
    assert learnt[16:] == [None] * train._MEASURED_BATCHES, "the final loss is that of M as an agent runs it"
    burnt = [one for one in followed if one is not None]
    assert burnt and all(any(one is mask for mask in masks) for one in burnt)


def test_a_training_with_dropout_that_was_stopped_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = memory_with()
    measured = train_memory(wanted, some_latents(), SETTINGS, 1, CPU, tmp_path / "whole")
    stop_in_the_fifth_step(
        monkeypatch, lambda: train_memory(memory_with(), some_latents(), SETTINGS, 1, CPU, tmp_path / "cut")
    )
    found = memory_with()
    assert train_memory(found, some_latents(), SETTINGS, 1, CPU, tmp_path / "cut") == measured
    assert_same_bits(found, wanted)
