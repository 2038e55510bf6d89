"""The coordinates in which C is evolved."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

from toy import SIZE, Toy, latents_of, toy_agent, toy_phase
from worldmodels.agent import Agent
from worldmodels.controller.inputs import PolicyInputs
from worldmodels.controller.linear import LinearControllers
from worldmodels.core.errors import UserError
from worldmodels.data.collect import record_episodes
from worldmodels.evolution.loop import evolve
from worldmodels.evolution.subspace import component_space, recorded_inputs, visited_inputs, whole_space
from worldmodels.execution.executor import LocalExecutor
from worldmodels.memory.latents import Latents
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.vision.conv_vae import ConvVAE
from worlds import MAX_STEPS, Scripted

INPUTS, CONTROLS = 12, 3
STREAM = np.random.default_rng(5)
SEEN = STREAM.standard_normal((500, INPUTS)) @ STREAM.standard_normal((INPUTS, INPUTS)) + 7.0
START = STREAM.standard_normal(CONTROLS * (INPUTS + 1))


def before_tanh(parameters: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """What one controller makes of inputs (n, F) before its tanh, through the code that acts."""
    controller = LinearControllers(torch.from_numpy(parameters[None]), INPUTS, CONTROLS)
    return torch.atanh(controller(torch.from_numpy(inputs))).numpy()


def test_the_zero_point_is_the_controller_that_evolution_starts_from() -> None:
    for space in (whole_space(START, CONTROLS), component_space(START, CONTROLS, SEEN, 5)):
        np.testing.assert_array_equal(space.controllers(np.zeros((1, space.size)))[0], START)


def test_in_the_whole_space_a_point_is_what_is_added_to_the_start() -> None:
    space = whole_space(START, CONTROLS)
    points = STREAM.standard_normal((4, space.size))
    assert space.size == len(START)
    np.testing.assert_allclose(space.controllers(points), START + points, rtol=1e-12)


def test_a_point_reads_biases_and_weights_of_centred_components() -> None:
    space = component_space(np.zeros_like(START), CONTROLS, SEEN, 5)
    assert space.size == CONTROLS * 6
    point = 0.02 * STREAM.standard_normal(space.size)
    wanted = point[:CONTROLS] + (SEEN - SEEN.mean(0)) @ space.basis @ point[CONTROLS:].reshape(5, CONTROLS)
    np.testing.assert_allclose(before_tanh(space.controllers(point[None])[0], SEEN), wanted, rtol=1e-6, atol=1e-9)


def test_weights_of_components_do_not_pull_at_the_controls_on_average() -> None:
    space = component_space(np.zeros_like(START), CONTROLS, SEEN, 5)
    point = np.concatenate([np.zeros(CONTROLS), 0.02 * STREAM.standard_normal(5 * CONTROLS)])
    assert np.abs(before_tanh(space.controllers(point[None])[0], SEEN).mean(axis=0)).max() < 1e-6


def test_components_are_uncorrelated_the_largest_first_and_vary_together_as_much_as_the_inputs() -> None:
    space = component_space(START, CONTROLS, SEEN, INPUTS)
    covariance = np.cov((SEEN - SEEN.mean(0)) @ space.basis, rowvar=False)
    variances = np.diag(covariance)
    np.testing.assert_allclose(covariance, np.diag(variances), atol=1e-8 * variances[0])
    assert (np.diff(variances) < 0).all()
    assert variances.sum() == pytest.approx(np.cov(SEEN, rowvar=False).trace())


def test_the_leading_components_hold_most_of_what_varies() -> None:
    few = component_space(START, CONTROLS, SEEN, 4).basis
    centred = SEEN - SEEN.mean(0)
    projected = centred @ few @ np.linalg.pinv(few)
    _, singular, _ = np.linalg.svd(centred)
    assert ((centred - projected) ** 2).sum() == pytest.approx((singular[4:] ** 2).sum())


def test_there_are_never_more_components_than_inputs_nor_any_that_explode() -> None:
    constant = SEEN.copy()
    constant[:, 3] = 1.0
    space = component_space(START, CONTROLS, constant, 32)
    assert space.basis.shape == (INPUTS, INPUTS) and np.isfinite(space.basis).all()
    assert before_tanh(space.controllers(np.full((1, space.size), 1e-3))[0], constant).shape == (500, CONTROLS)


def test_unbounded_inputs_count_as_if_they_varied_no_more_than_the_others() -> None:
    """c has no bounds; by its variance alone it would be all that C listens to."""
    shouting = SEEN.copy()
    shouting[:, 8:] *= 100.0
    spread = SEEN.var(axis=0)
    quiet = SEEN.copy()
    quiet[:, 8:] *= np.sqrt(spread[:8].mean() / spread[8:].mean())
    point = 0.02 * STREAM.standard_normal((1, CONTROLS * 6))
    start = np.zeros_like(START)
    heard = component_space(start, CONTROLS, shouting, 5, slice(8, INPUTS)).controllers(point)[0]
    wanted = component_space(start, CONTROLS, quiet, 5).controllers(point)[0]
    np.testing.assert_allclose(before_tanh(heard, shouting), before_tanh(wanted, quiet), rtol=1e-6, atol=1e-8)
    deaf = component_space(start, CONTROLS, shouting, 5).controllers(point)[0]
    assert not np.allclose(before_tanh(deaf, shouting), before_tanh(wanted, quiet), rtol=0.1)


def following(memory: MDNRNN) -> Agent:
    """What following recorded episodes needs of an agent."""
    inputs = PolicyInputs(("z", "h"), memory.latent_size, memory.hidden_size)
    return cast(Agent, SimpleNamespace(samples_z=False, memory=memory, inputs=inputs, device=torch.device("cpu")))


def test_what_c_would_have_seen_is_z_with_the_h_from_before_it() -> None:
    torch.manual_seed(3)
    memory = MDNRNN(4, 2, 6)
    lengths = torch.tensor([9, 21, 13])
    frames, steps = int((lengths + 1).sum()), int(lengths.sum())
    mu, actions = torch.randn(frames, 4).half(), torch.randn(steps, 2)
    latents = Latents(mu, mu, actions, torch.zeros(steps), torch.zeros(3, dtype=torch.uint8), lengths)
    agent = following(memory)
    wanted = []
    for episode, length in enumerate(lengths.tolist()):
        z = mu[int(lengths[:episode].sum()) + episode :][:length].float()
        taken = actions[int(lengths[:episode].sum()) :][:length]
        with torch.no_grad():
            hidden, _ = memory.lstm(torch.cat([z, taken], dim=1)[None])
        before = torch.cat([torch.zeros(1, 6), hidden[0, :-1]])
        wanted += torch.cat([z, before], dim=1)[::4].tolist()
    found = recorded_inputs(agent, latents)
    assert found.shape == (3 + 6 + 4, 10)
    np.testing.assert_allclose(sorted(found.tolist()), sorted(wanted), atol=1e-5)


def test_what_a_controller_visits_is_what_it_would_have_seen_along_its_own_episodes(tmp_path: Path) -> None:
    torch.manual_seed(1)
    task, seeds = Scripted(deaths=1), [3, 4, 5, 13]
    agent = Agent(task, ConvVAE(4), MDNRNN(4, 2, 6), torch.randn(2 * 11))
    found = visited_inputs(LocalExecutor(), agent, "fast", seeds, MAX_STEPS)
    assert len(task.made) == 2, "a world whose worker died is played again"
    episodes = record_episodes(LocalExecutor(), task, "fast", lambda some: agent.policy(len(some)), seeds, MAX_STEPS)
    wanted = recorded_inputs(agent, latents_of(agent, episodes, tmp_path))
    assert found.shape == wanted.shape == (2 + 2 + 2 + 2, 10) and found.dtype == np.float32
    np.testing.assert_allclose(sorted(found.tolist()), sorted(wanted.tolist()), atol=0.01)


def test_recordings_too_short_to_see_anything_are_refused() -> None:
    latents = Latents(
        torch.zeros(2, 4), torch.zeros(2, 4), torch.zeros(1, 2), torch.zeros(1), torch.zeros(1), torch.tensor([1])
    )
    with pytest.raises(UserError, match="too short"):
        recorded_inputs(following(MDNRNN(4, 2, 6)), latents)


def test_a_resumed_evolution_keeps_its_coordinates(tmp_path: Path) -> None:
    sample = STREAM.standard_normal((50, SIZE // 2 - 1))

    def evolved(name: str, toy: Toy, seen: np.ndarray) -> tuple[torch.Tensor, dict[str, float]]:
        return evolve(toy_agent(), toy_phase(toy, inputs=lambda: seen), tmp_path / name)

    wanted = evolved("whole", Toy(), sample)
    with pytest.raises(KeyboardInterrupt):
        evolved("killed", Toy(dies_at=4), sample)
    found = evolved("killed", Toy(), 3 * sample + 1)
    assert torch.equal(found[0], wanted[0]) and found[1] == wanted[1]
