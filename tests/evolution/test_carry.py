"""C carried over to another V and M by ridge regression: its controls stay what they were, and so does the result."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from toy import Glance, latents_of
from worldmodels.agent import Agent
from worldmodels.controller.layout import Layout
from worldmodels.core.errors import UserError
from worldmodels.core.files import load_tensors, save_tensors
from worldmodels.data.episodes import Episode, EpisodeStore, Shard
from worldmodels.evolution import carry
from worldmodels.evolution.carry import CARRIED_FILE, Carried, carried_controller
from worldmodels.evolution.subspace import recorded_inputs
from worldmodels.memory.latents import Latents
from worldmodels.memory.mdnrnn import MDNRNN
from worlds import Scripted

STREAM = np.random.default_rng(3)
LATENT, HIDDEN = 4, 6
Said = pytest.CaptureFixture[str]


def episode(seed: int, length: int) -> Episode:
    """An episode of random plain pictures and random actions."""
    pixels = STREAM.integers(0, 256, (length + 1, 1, 1, 3)).astype(np.uint8)
    frames = np.ascontiguousarray(np.broadcast_to(pixels, (length + 1, 64, 64, 3)))
    actions = STREAM.uniform(-1, 1, (length, 2)).astype(np.float32)
    return Episode(frames, actions, np.zeros(length, np.float32), True, seed, "fast")


OLD, NEW = [episode(seed, 40) for seed in range(3)], [episode(seed, 30 + seed) for seed in range(3, 15)]


def agent_of(inputs: Sequence[str] = ("z", "h"), hidden: int = 0, seed: int = 1) -> Agent:
    """An agent whose C acts."""
    torch.manual_seed(seed)
    memory = MDNRNN(LATENT, 2, HIDDEN, 2)
    size = {"z": LATENT, "h": HIDDEN, "c": HIDDEN}
    layout = Layout(sum(size[name] for name in inputs), 2, hidden)
    return Agent(Scripted(), Glance(LATENT), memory, 0.7 * torch.randn(layout.count), inputs, hidden=hidden)


class Case:
    """The shards of a second round, and the latents of both rounds by the V of the new agent."""

    def __init__(self, folder: Path, old: Agent, new: Agent, episodes: Sequence[Episode] = NEW) -> None:
        self.old, self.new, self.folder, self.asked = old, new, folder, 0
        store = EpisodeStore(folder / "new")
        half = max(1, len(episodes) // 2)
        parts = [part for part in (episodes[:half], episodes[half:]) if part]
        for index, part in enumerate(parts):
            store.write(index, part)
        self.shards = [Shard(store.shard_path(index)) for index in range(len(parts))]
        self.latents = latents_of(new, [*OLD, *episodes], folder / "all")

    def carried(self, identity: str = "") -> Carried:
        return carried_controller(self.old, self.new, self.shards, self.latents, self.folder, identity)

    def controls(self, agent: Agent, controller: torch.Tensor) -> np.ndarray:
        """The controls of an agent with this C along the new round's episodes, through the code that acts."""
        self.asked += 1
        latents = latents_of(agent, NEW, self.folder / f"asked-{self.asked}")
        inputs = torch.from_numpy(recorded_inputs(agent, latents))
        return np.asarray(agent.controllers(controller[None])(inputs).numpy())

    def error(self, controller: torch.Tensor) -> float:
        """How far its controls with the new V and M are from those of the old agent, in the mean."""
        wanted = self.controls(self.old, self.old.controller)
        return float(np.abs(self.controls(self.new, controller) - wanted).mean())


def turned(agent: Agent) -> Agent:
    """The same agent with another basis of z, which M reads as before: there is a C with exactly the same controls."""
    other, turn = copy.deepcopy(agent), torch.linalg.qr(torch.randn(LATENT, LATENT))[0] * 1.5
    assert isinstance(other.vision, Glance)
    with torch.no_grad():
        other.vision.map.weight.copy_(turn @ agent.vision.map.weight)  # type: ignore[union-attr, operator]
        other.vision.map.bias.copy_(turn @ agent.vision.map.bias)  # type: ignore[union-attr, operator]
        weight = other.memory.lstm.weight_ih_l0
        weight[:, :LATENT] = agent.memory.lstm.weight_ih_l0[:, :LATENT] @ torch.linalg.inv(turn)
    return other


def trained_on(agent: Agent, by: float = 0.15) -> Agent:
    """The same agent whose V and M have changed a little, as in a further round."""
    other = copy.deepcopy(agent)
    with torch.no_grad():
        for parameter in [*other.vision.parameters(), *other.memory.parameters()]:
            parameter.add_(by * torch.randn(parameter.shape) * parameter.abs().mean())
    return other


KINDS: dict[str, Callable[[], Agent]] = {
    "z and h": agent_of,
    "z, c and h": lambda: agent_of(("z", "c", "h")),
    "z alone": lambda: agent_of(("z",)),
    "a hidden layer": lambda: agent_of(hidden=5),
}


@pytest.mark.parametrize("kind", KINDS)
def test_where_there_is_a_c_with_the_same_controls_it_is_found(kind: str, tmp_path: Path, capsys: Said) -> None:
    old = KINDS[kind]()
    case = Case(tmp_path, old, turned(old))
    found = case.carried()
    assert found.controller.shape == old.controller.shape and found.controller.dtype == torch.float32
    assert case.error(old.controller) > 0.1 > 0.01 > case.error(found.controller)
    assert (found.r_squared > 0.999).all() and (found.unchanged < 0.9).all()
    assert found.metrics == {"carried_r2": found.r_squared.min()}
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "ridge" in line]
    assert "C is carried over by ridge regression: R2 of its controls is 1.00, 1.00 on " in line
    assert f"held-out steps, with unchanged weights {found.unchanged[0]:.2f}, {found.unchanged[1]:.2f}" in line


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_v_and_m_that_have_gone_on_training_the_controls_are_closer_than_with_the_old_weights(
    kind: str, tmp_path: Path
) -> None:
    old = KINDS[kind]()
    case = Case(tmp_path, old, trained_on(old))
    found = case.carried()
    assert case.error(found.controller) < 0.7 * case.error(old.controller)
    assert (found.r_squared > found.unchanged).all() and (found.r_squared < 1).all()


def test_a_hidden_layers_outputs_are_used_as_before(tmp_path: Path) -> None:
    old = agent_of(hidden=5)
    found, first = Case(tmp_path, old, turned(old)).carried(), old.layout.first
    assert torch.equal(found.controller[first:], old.controller[first:])
    assert not torch.isclose(found.controller[:first], old.controller[:first]).any()


def test_for_the_same_v_and_m_the_weights_stay_as_they_are(tmp_path: Path) -> None:
    old = agent_of()
    found = Case(tmp_path, old, copy.deepcopy(old)).carried()
    torch.testing.assert_close(found.controller, old.controller, atol=1e-4, rtol=0)
    assert (found.r_squared > 1 - 1e-9).all()


def test_new_inputs_that_say_little_of_the_old_controls_make_c_no_worse(tmp_path: Path) -> None:
    """The weights are not changed for the sake of noise."""
    old, new = agent_of(), agent_of(seed=2)
    new.vision.map.weight.data.zero_()  # type: ignore[union-attr, operator]
    case = Case(tmp_path, old, new)
    found = case.carried()
    assert np.isfinite(found.controller.numpy()).all()
    assert case.error(found.controller) <= case.error(old.controller) + 0.02


def test_the_penalty_is_chosen_on_episodes_that_do_not_serve_to_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = agent_of()
    case, asked = Case(tmp_path, old, trained_on(old)), list[list[int]]()
    original = carry._inputs

    def noted(agent: Agent, shards: Sequence[Shard], latents: Latents, numbers: Sequence[int], encode: bool):  # type: ignore[no-untyped-def]
        asked.append(list(numbers))
        return original(agent, shards, latents, numbers, encode)

    monkeypatch.setattr(carry, "_inputs", noted)
    case.carried()
    fit, again, held, also = asked
    assert fit == again and held == also and held == [1, 6, 11] and sorted(fit + held) == list(range(12))


def test_the_old_and_the_new_inputs_are_of_the_same_steps_of_the_new_rounds_episodes(tmp_path: Path) -> None:
    old = agent_of()
    case = Case(tmp_path, old, turned(old))
    numbers = [2, 7, 10]  # of both shards
    own = carry._inputs(old, case.shards, case.latents, numbers, encode=True)
    other = carry._inputs(case.new, case.shards, case.latents, numbers, encode=False)
    wanted = recorded_inputs(old, latents_of(old, [NEW[number] for number in numbers], tmp_path / "some"))
    np.testing.assert_allclose(own.numpy(), wanted, atol=1e-6)
    # M reads the turned z as before, so that h is the same at the same step, but for the rounding of z to float16.
    torch.testing.assert_close(own[:, LATENT:], other[:, LATENT:], atol=0.01, rtol=0)
    assert own.shape == other.shape and not torch.isclose(own[:, :LATENT], other[:, :LATENT], atol=0.05).all()


def test_what_was_carried_over_is_kept_for_a_process_that_goes_on(tmp_path: Path, capsys: Said) -> None:
    old = agent_of()
    case = Case(tmp_path, old, trained_on(old))
    first = case.carried("one")
    capsys.readouterr()
    case.shards = []  # nothing is read again
    again = case.carried("one")
    assert torch.equal(again.controller, first.controller) and capsys.readouterr().err == ""
    assert np.array_equal(again.r_squared, first.r_squared) and np.array_equal(again.unchanged, first.unchanged)
    tensors, meta = load_tensors(tmp_path / CARRIED_FILE)
    assert meta == {"identity": "one"} and set(tensors) == {"controller", "r_squared", "unchanged"}


def test_what_was_kept_for_another_experiment_is_made_anew(tmp_path: Path) -> None:
    old = agent_of()
    case = Case(tmp_path, old, trained_on(old))
    wanted = case.carried("one")
    odd = {"controller": torch.zeros(3), "r_squared": torch.zeros(2), "unchanged": torch.zeros(2)}
    save_tensors(tmp_path / CARRIED_FILE, odd, {"identity": "other"})
    assert torch.equal(case.carried("one").controller, wanted.controller)


def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path) -> None:
    old = agent_of()
    case = Case(tmp_path, old, trained_on(old))
    (tmp_path / CARRIED_FILE).write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"carried\.safetensors .* damaged.*; delete it") as refused:
        case.carried()
    assert "\n" not in str(refused.value)


def test_a_c_that_does_nothing_yet_has_nothing_to_carry_over(tmp_path: Path, capsys: Said) -> None:
    old = agent_of()
    old.controller.zero_()
    found = Case(tmp_path, old, trained_on(old)).carried()
    assert torch.equal(found.controller, old.controller) and found.metrics == {}
    assert "ridge" not in capsys.readouterr().err


def test_a_control_that_never_changes_is_not_measured(tmp_path: Path, capsys: Said) -> None:
    old = agent_of()
    bias, weights = old.layout.layers(old.controller)[0]
    bias[1], weights[:, 1] = 40.0, 0.0
    found = Case(tmp_path, old, trained_on(old)).carried()
    assert np.isfinite(found.r_squared).tolist() == [True, False] and found.metrics["carried_r2"] == found.r_squared[0]
    assert ", unknown (constant) on" in capsys.readouterr().err


def test_a_single_episode_is_too_few_and_two_will_do(tmp_path: Path) -> None:
    old = agent_of()
    (tmp_path / "two").mkdir()
    with pytest.raises(UserError, match="with 1 episode of the new round, expected at least 2: collect more, or use"):
        Case(tmp_path, old, trained_on(old), NEW[:1]).carried()
    found = Case(tmp_path / "two", old, trained_on(old), NEW[:2]).carried()
    assert np.isfinite(found.controller.numpy()).all()
