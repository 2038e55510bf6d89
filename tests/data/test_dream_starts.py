"""Moments of long recorded episodes from which dreams start, from the first frame to the last second of a race."""

import torch

from worldmodels.data.encode import dream_starts
from worldmodels.memory.latents import Latents
from worldmodels.memory.mdnrnn import MDNRNN

LENGTHS = [950, 500, 1000, 120]
STEPS = tuple(range(0, 901, 100))


def test_dreams_can_start_anywhere_in_a_race_with_the_state_that_m_has_there() -> None:
    frames = [torch.tensor([number, step]) for number, length in enumerate(LENGTHS) for step in range(length + 1)]
    latents = Latents(
        mu=torch.stack(frames).half(),
        logvar=torch.zeros(len(frames), 2).half(),
        actions=torch.randn(sum(LENGTHS), 1, generator=torch.Generator().manual_seed(1)),
        rewards=torch.zeros(sum(LENGTHS)),
        terminated=torch.zeros(4, dtype=torch.uint8),
        lengths=torch.tensor(LENGTHS),
    )
    torch.manual_seed(2)
    memory = MDNRNN(2, 1, 4, 2)
    with torch.no_grad():
        memory.lstm.weight_ih_l0[:, :2].mul_(0.001)  # steps are large numbers
    starts, states = dream_starts(memory, latents, STEPS)
    places = [(int(number), int(step)) for number, step in starts[:, 0].tolist()]
    assert sorted(places) == [
        (number, step) for number, length in enumerate(LENGTHS) for step in STEPS if step < length
    ]
    before = [0, 950, 1450, 2450]
    for number, length in enumerate(LENGTHS):
        state = memory.initial_state(1)
        for step in range(length):
            if (number, step) in places:
                found = states[places.index((number, step))].float()
                torch.testing.assert_close(found, torch.stack([one[0] for one in state]), atol=2e-3, rtol=2e-3)
            z = torch.tensor([[float(number), float(step)]])
            action = latents.actions[before[number] + step][None]
            with torch.no_grad():
                state = memory.step(z, action, state)
