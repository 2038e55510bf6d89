"""The agent: the order of a step, rows, saving and loading, and what it refuses."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from outside import registered
from worldmodels.agent import AGENT_FILE, Agent, load_agent, untrained_agent
from worldmodels.controller.linear import parameter_count
from worldmodels.core.errors import UserError
from worldmodels.core.files import load_tensors, save_tensors
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.memory.mixture import expectation
from worldmodels.tasks import TASKS, Task, get_task
from worldmodels.tasks.base import Observations
from worldmodels.tasks.car_racing.task import CarRacing
from worldmodels.vision import base as vision_base
from worldmodels.vision.base import Vision
from worldmodels.vision.config import VisionConfig
from worldmodels.vision.conv_vae import ConvVAE
from worlds import Scripted

Z, H = 3, 8


class TinyVision(Vision):
    """z is a linear map of the scripted world's observation."""

    def __init__(self) -> None:
        super().__init__(Z)
        self.map = nn.Linear(3, Z)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mu = torch.tanh(self.map(images[:, :, 0, 0].float() * 5))
        return mu, torch.zeros_like(mu)

    def decode(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def objectives(self, config: VisionConfig, seed: int) -> list[Any]:
        raise NotImplementedError

    def held_out_loss(self, images: Tensor, config: VisionConfig) -> dict[str, Tensor]:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons to the last bit should not depend on whether this processor likes bfloat16."""
    monkeypatch.setattr(vision_base, "precision", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(vision_base, "fast_bfloat16", lambda _: False)


def random_agent(task: Task, vision: Vision, memory: MDNRNN, inputs: tuple[str, ...] = ("z", "h")) -> Agent:
    """An agent whose C is random."""
    agent = untrained_agent(task, vision, memory, inputs)
    agent.controller = torch.randn(len(agent.controller))
    return agent


def tiny_agent(inputs: tuple[str, ...] = ("z", "h"), seed: int = 0) -> Agent:
    torch.manual_seed(seed)
    return random_agent(Scripted(), TinyVision(), MDNRNN(Z, 2, H, 2), inputs)


def observations(step: int, count: int = 4) -> np.ndarray:
    """Some observations of the scripted world."""
    return np.random.default_rng(step).integers(0, 256, (count, 3), dtype=np.uint8)


@pytest.mark.parametrize("inputs", [("z", "h"), ("z",), ("z", "h", "c"), ("h", "z")])
def test_a_step_is_z_then_the_action_from_z_and_the_old_h_then_the_new_h(inputs: tuple[str, ...]) -> None:
    agent = tiny_agent(inputs)
    policy, lstm = agent.policy(4), agent.memory.lstm
    size = sum({"z": Z, "h": H, "c": H}[name] for name in inputs)
    bias, weights = agent.controller[:2], agent.controller[2:].reshape(size, 2)
    h, c = torch.zeros(1, 4, H), torch.zeros(1, 4, H)
    for step in range(5):
        seen = observations(step)
        action = policy.act(seen)
        with torch.no_grad():
            z, _ = agent.encode(agent.task.frames(seen))
            known = {"z": z, "h": h[0], "c": c[0]}
            control = torch.tanh(torch.cat([known[name] for name in inputs], -1) @ weights + bias)
            wanted = control.numpy() / 2  # the scripted world's codec for its environment ...
            np.testing.assert_allclose(action, wanted, rtol=1e-5, atol=1e-6)
            for_memory = torch.from_numpy(2 * wanted)  # ... and for M
            _, (h, c) = lstm(torch.cat([z, for_memory], -1)[:, None], (h, c))
            expected = expectation(agent.memory.heads(h[0]).mixture)
        torch.testing.assert_close(policy.latents, z)
        torch.testing.assert_close(policy.expected_latents(), expected, rtol=1e-4, atol=1e-5)


def test_acting_on_some_rows_equals_acting_on_each_alone() -> None:
    agent = tiny_agent()
    together, alone = agent.policy(4), [agent.policy(1) for _ in range(4)]
    for step, rows in enumerate([[0, 1, 2, 3], [0, 1, 2, 3], [0, 2, 3], [2, 3], [3], [3]]):
        seen = observations(step)[rows]
        actions = together.act(seen, np.array(rows))
        for index, row in enumerate(rows):
            wanted = alone[row].act(seen[index : index + 1])
            np.testing.assert_allclose(actions[index : index + 1], wanted, rtol=1e-5, atol=1e-6)
    for row in range(4):
        torch.testing.assert_close(together.latents[row : row + 1], alone[row].latents)
        torch.testing.assert_close(together.expected_latents()[row : row + 1], alone[row].expected_latents())


def test_each_row_is_driven_by_its_own_controller() -> None:
    agent = tiny_agent()
    controllers = torch.randn(4, len(agent.controller))
    together = agent.policy(4, controllers)
    alone = [agent.policy(1, controllers[row : row + 1]) for row in range(4)]
    for step, rows in enumerate([[0, 1, 2, 3], [1, 3], [1, 3]]):
        seen = observations(step)[rows]
        actions = together.act(seen, np.array(rows))
        for index, row in enumerate(rows):
            wanted = alone[row].act(seen[index : index + 1])
            np.testing.assert_allclose(actions[index : index + 1], wanted, rtol=1e-5, atol=1e-6)


def test_a_reset_forgets_everything() -> None:
    policy = tiny_agent().policy(4)
    first = [policy.act(observations(step)) for step in range(3)]
    policy.reset()
    assert policy.latents.abs().max() == 0
    assert np.array_equal([policy.act(observations(step)) for step in range(3)], first)


def test_two_policies_of_one_agent_do_not_disturb_each_other() -> None:
    agent = tiny_agent()
    first, second = agent.policy(4), agent.policy(4)
    wanted = [first.act(observations(step)) for step in range(3)]
    for step in range(3):
        agent.policy(4).act(observations(9))
        assert np.array_equal(second.act(observations(step)), wanted[step])


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((3, 3), np.uint8),
        np.zeros((4, 4), np.uint8),
        np.zeros((3,), np.uint8),
        np.zeros((4, 3), np.float32),
    ],
)
def test_other_observations_are_refused_with_what_was_expected_and_what_came(wrong: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"expected observations of shape \(4, 3\) and type uint8, got .*stock"):
        tiny_agent().policy(4).act(wrong)


def test_impossible_agents_and_policies_are_refused() -> None:
    agent = tiny_agent()
    with pytest.raises(UserError, match="at least 1 environment, got 0"):
        agent.policy(0)
    with pytest.raises(UserError, match="some of z, h and c"):
        Agent(agent.task, agent.vision, agent.memory, agent.controller, ("z", "x"))
    with pytest.raises(UserError, match="expected controller parameters"):
        Agent(agent.task, agent.vision, agent.memory, agent.controller[:-1])


# --- saving and loading --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_agent() -> Agent:
    """An agent of the real sizes with random weights."""
    torch.manual_seed(1)
    task, vision, memory = CarRacing(), ConvVAE(32), MDNRNN(32, 3, 256, 5, reward=True, end=True)
    controller = 0.1 * torch.randn(parameter_count(32 + 256, 3))
    return Agent(task, vision, memory, controller, info={"preset": "quick", "seed": 3})


def pictures(step: int) -> np.ndarray:
    """Blocks of colour, since pure noise looks the same to every V."""
    small = np.random.default_rng(step).integers(0, 256, (2, 6, 6, 3), dtype=np.uint8)
    return small.repeat(16, axis=1).repeat(16, axis=2)


def test_a_loaded_agent_acts_like_the_saved_one(real_agent: Agent, tmp_path: Path) -> None:
    real_agent.save(tmp_path / "deep" / "folder")
    loaded = load_agent(tmp_path / "deep" / "folder")
    assert loaded.task.name == "car-racing" and loaded.inputs.names == ("z", "h")
    assert loaded.info == {"preset": "quick", "seed": 3}
    assert loaded.memory.reward_head is not None and loaded.memory.end_head is not None
    assert torch.equal(loaded.controller, real_agent.controller), "C keeps its float32"
    before, after = real_agent.policy(2), loaded.policy(2)
    for step in range(6):
        np.testing.assert_allclose(after.act(pictures(step)), before.act(pictures(step)), atol=0.01)
    torch.testing.assert_close(after.latents, before.latents, atol=0.01, rtol=0.01)
    z = torch.randn(2, 32)
    assert np.abs(loaded.decode(z).astype(int) - real_agent.decode(z)).max() <= 2
    assert loaded.decode(z).shape == (2, 64, 64, 3) and loaded.decode(z).dtype == np.uint8


def test_weights_are_half_precision_and_saving_again_changes_no_byte(real_agent: Agent, tmp_path: Path) -> None:
    real_agent.save(tmp_path / "one")
    load_agent(tmp_path / "one").save(tmp_path / "two")
    first, second = ((tmp_path / name / AGENT_FILE).read_bytes() for name in ("one", "two"))
    assert first == second and len(first) < 10_000_000


def test_an_agent_is_found_in_its_file_its_folder_and_its_run(real_agent: Agent, tmp_path: Path) -> None:
    real_agent.save(tmp_path / "run" / "agent")
    for place in (tmp_path / "run", str(tmp_path / "run" / "agent"), tmp_path / "run" / "agent" / AGENT_FILE):
        assert torch.equal(load_agent(place).controller, real_agent.controller)


def test_what_is_no_agent_is_refused(real_agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no agent called"):
        load_agent("no-such-thing")
    with pytest.raises(UserError, match="holds no agent"):
        load_agent(tmp_path)
    real_agent.save(tmp_path)
    monkeypatch.setattr(TASKS, "_known", {"other": "worlds:Scripted"})
    with pytest.raises(UserError, match="unknown task 'car-racing'"):
        load_agent(tmp_path)


def test_weights_that_are_not_finite_are_never_loaded(real_agent: Agent, tmp_path: Path) -> None:
    broken = Agent(real_agent.task, real_agent.vision, real_agent.memory, real_agent.controller.clone())
    broken.controller[3] = float("nan")
    broken.save(tmp_path)
    with pytest.raises(UserError, match="NaN or infinity"):
        load_agent(tmp_path)


def test_a_new_task_is_a_registry_line(tmp_path: Path) -> None:
    """Everything that the agent knows of its world, it asks the task."""
    with registered(TASKS, "scripted", "worlds:Scripted"):
        random_agent(get_task("scripted"), ConvVAE(4), MDNRNN(4, 2, 8, 2)).save(tmp_path)
        loaded = load_agent(tmp_path)
    assert isinstance(loaded.task, Scripted)
    assert loaded.policy(2).act(observations(0, 2)).shape == (2, 2)


def test_agents_of_another_format_say_what_to_do(real_agent: Agent, tmp_path: Path) -> None:
    real_agent.save(tmp_path)
    tensors, meta = load_tensors(tmp_path / AGENT_FILE)
    assert meta["format"] == 2 and meta["vision"] == {"name": "conv-vae", "latent_size": 32}
    for number, advice in ((1, "made by an older version; train it again"), (3, "update worldmodels")):
        save_tensors(tmp_path / AGENT_FILE, tensors, meta | {"format": number})
        with pytest.raises(UserError, match=f"its format is {number}, this version reads 2; .*{advice}") as refused:
            load_agent(tmp_path)
        assert "\n" not in str(refused.value)


# --- what others notice of it --------------------------------------------------------------------------------


def test_observations_whose_frames_are_there_give_the_same_actions_as_raw_ones() -> None:
    agent = tiny_agent()
    first, second = agent.policy(4), agent.policy(4)
    for step, rows in enumerate([[0, 1, 2, 3], [1, 3], [3]]):
        seen = Observations(agent.task, observations(step)[rows])
        assert np.array_equal(first.act(seen, np.array(rows)), second.act(seen.raw, np.array(rows)))


@pytest.mark.parametrize(
    ("frames", "got"),
    [
        (np.zeros((2, 64, 64, 3), np.float32), r"\(2, 64, 64, 3\) float32"),
        (np.zeros((2, 96, 96, 3), np.uint8), r"\(2, 96, 96, 3\) uint8"),
        (np.zeros((64, 64, 3), np.uint8), r"\(64, 64, 3\) uint8"),
        ([[1, 2]], "list"),
    ],
)
def test_what_are_no_frames_is_not_encoded(frames: Any, got: str, real_agent: Agent) -> None:
    with pytest.raises(UserError, match=rf"expected frames of shape \(N, 64, 64, 3\) and type uint8.*got {got}; agent"):
        real_agent.encode(frames)


def test_z_may_be_a_tensor_or_an_array_and_must_be_finite_and_fit(real_agent: Agent) -> None:
    z = torch.randn(3, 32)
    assert np.array_equal(real_agent.decode(z), real_agent.decode(z.numpy()))
    assert np.array_equal(real_agent.decode(z), real_agent.decode(z.double().numpy()))
    for wrong, got in (
        (z[0], r"\(32,\) float32"),
        (z[:, :5].numpy(), r"\(3, 5\) float32"),
        (z > 0, r"\(3, 32\) bool"),
        ([0.0] * 32, "list"),
    ):
        with pytest.raises(UserError, match=rf"expected z as numbers of shape \(N, 32\), got {got}"):
            real_agent.decode(wrong)  # type: ignore[arg-type]
    z[1, 2] = float("nan")
    with pytest.raises(UserError, match="expected finite numbers as z, got NaN"):
        real_agent.decode(z)


def test_agents_that_differ_in_anything_they_do_have_different_digests() -> None:
    agent = tiny_agent()
    digests = [agent.digest()]
    agent.starts = torch.zeros(2, 2, Z)
    digests.append(agent.digest())
    agent.start_states = torch.ones(2, 2, H)
    digests.append(agent.digest())
    swapped = Agent(agent.task, agent.vision, agent.memory, agent.controller, ("h", "z"))
    assert len({*digests, swapped.digest()}) == 4
    assert swapped.digest() == Agent(agent.task, agent.vision, agent.memory, agent.controller, ("h", "z")).digest()
