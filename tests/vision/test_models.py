"""What every V that ships with the package can do, and that its training resumes to the bit."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from dream_agents import dreamer
from worldmodels.agent import AGENT_FILE, Agent, load_agent
from worldmodels.core import interrupt
from worldmodels.core.errors import UserError
from worldmodels.core.fit import CHECKPOINT
from worldmodels.dream.env import DreamVectorEnv
from worldmodels.vision.base import check_vision, make_vision
from worldmodels.vision.config import GANConfig, VisionConfig
from worldmodels.vision.train import train_vision

CPU = torch.device("cpu")
MODELS = ["conv-vae", "patch-vae", "vae-gan", "vae-gan-small"]
QUICK = ["patch-vae", "vae-gan-small"]
"""Models that these tests can train; vae-gan differs from its small version in nothing but the number of channels."""


class Noise:
    """Frames of noise, as a shard of one episode."""

    def __init__(self, count: int) -> None:
        self.lengths = np.array([count - 1])
        self._frames = np.random.default_rng(count).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)

    @property
    def num_frames(self) -> int:
        return len(self._frames)

    def frames(self, start: int, stop: int) -> np.ndarray:
        return self._frames[start:stop]


SHARDS = [Noise(140), Noise(150)]
SETTINGS = {"latent_size": 4, "epochs": 0.375, "batch": 8, "window": 2, "lr": 1e-3}


def settings(model: str) -> VisionConfig:
    return VisionConfig(model=model, **SETTINGS)  # type: ignore[arg-type]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("size", [1, 32])
def test_images_become_latents_and_latents_images(model: str, size: int) -> None:
    torch.manual_seed(0)
    vision = make_vision(model, size).eval()
    with torch.inference_mode():
        mu, logvar = vision.encode(torch.rand(2, 3, 64, 64))
        images = vision.decode(3 * torch.randn(2, size))
    assert vision.name == model and vision.latent_size == size
    assert mu.shape == logvar.shape == (2, size) and mu.dtype == logvar.dtype == torch.float32
    assert images.shape == (2, 3, 64, 64) and images.min() >= 0 and images.max() <= 1
    assert (mu[0] - mu[1]).abs().max() > 1e-4 and (images[0] - images[1]).abs().max() > 1e-4


@pytest.mark.parametrize("model", MODELS)
def test_the_z_of_a_frame_does_not_depend_on_the_frames_beside_it(model: str) -> None:
    torch.manual_seed(0)
    vision = make_vision(model, 4)  # in training mode, in which a batch norm would mix the frames
    images = torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        together, alone = vision.encode(images)[0], vision.encode(images[:1])[0]
        layout = vision.encode(images.contiguous(memory_format=torch.channels_last))[0]
    assert torch.allclose(together[:1], alone, atol=1e-5)
    assert torch.allclose(together, layout, atol=1e-5)


@pytest.mark.parametrize("model", QUICK)
def test_bfloat16_is_close_to_float32(model: str) -> None:
    torch.manual_seed(0)
    vision = make_vision(model, 8)
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        exact, wanted = vision.encode(images)[0], vision.decode(torch.ones(2, 8))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mu, logvar = vision.encode(images.bfloat16())
            decoded = vision.decode(torch.ones(2, 8))
    assert mu.dtype == logvar.dtype == torch.float32
    assert (mu - exact).abs().max() < 0.05 * exact.abs().max() + 0.02
    assert (decoded.float() - wanted).abs().max() < 0.03


@pytest.mark.parametrize("model", QUICK)
def test_gradients_reach_every_parameter(model: str) -> None:
    torch.manual_seed(0)
    objectives = make_vision(model, 4).objectives(settings(model), 1)
    images = torch.rand(4, 3, 64, 64)
    for objective in objectives:
        with torch.no_grad():  # branches that begin at zero would keep gradients from what is before them
            for parameter in objective.module.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
    for objective in objectives:
        total, parts = objective.loss(images, 0)
        assert set(parts) == set(objective.parts) and not any(part.requires_grad for part in parts.values())
        total.backward(inputs=list(objective.module.parameters()))  # type: ignore[no-untyped-call]
        for name, parameter in objective.module.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, f"{objective.name}: {name}"


@pytest.mark.parametrize("model", QUICK)
def test_training_logs_every_part_and_measures_what_the_paper_s_v_is_measured_by(model: str, tmp_path: Path) -> None:
    vision, held_out = train_vision(SHARDS, settings(model), 1, CPU, tmp_path)
    with open(tmp_path / "metrics.csv", newline="") as file:
        (logged,) = csv.DictReader(file)
    adversarial = [f"discriminator_{name}" for name in ("real", "reconstructed", "prior", "accuracy")]
    adversarial += ["reconstruction", "kl", "feature", "generator"]
    columns = adversarial if vision.adversarial else ["reconstruction", "kl"]
    assert list(logged) == ["step", *columns, "loss", "lr", "vision_per_s"] and all(logged.values())
    assert set(held_out) == {"held_out_reconstruction", "held_out_kl"}
    assert not any("discriminator" in name for name in vision.state_dict())


@pytest.mark.parametrize("model", QUICK)
def test_an_interrupted_training_resumes_to_the_bit(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, _ = train_vision(SHARDS, settings(model), 1, CPU, tmp_path / "whole")
    kind = type(wanted)
    plain, calls = kind.decode, [0]

    def decode(self: object, z: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == 5:  # in the second step of a GAN, in the fifth of others
            interrupt._received = 15
        return plain(self, z)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(kind, "decode", decode)
        patch.setattr(interrupt, "_received", None)
        with pytest.raises(interrupt.Interrupted):
            train_vision(SHARDS, settings(model), 1, CPU, tmp_path / "cut")
    found, _ = train_vision(SHARDS, settings(model), 1, CPU, tmp_path / "cut")
    for name, value in wanted.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
    same = [(tmp_path / folder / CHECKPOINT).read_bytes() for folder in ("whole", "cut")]
    assert same[0] == same[1], "the discriminator and all moments of Adam are the same, too"


@pytest.mark.parametrize("model", ["patch-vae", "vae-gan-small"])
def test_agents_are_saved_and_loaded_and_act_and_dream(model: str, tmp_path: Path) -> None:
    like = dreamer()
    vision = make_vision(model, 6)
    agent = Agent(like.task, vision, like.memory, like.controller, starts=like.starts)
    agent.save(tmp_path)
    loaded = load_agent(tmp_path)
    assert loaded.vision.name == model and type(loaded.vision) is type(vision)
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again" / AGENT_FILE).read_bytes() == (tmp_path / AGENT_FILE).read_bytes()
    observations = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    actions = loaded.policy(2).act(observations)
    assert actions.shape == (2, 3) and np.isfinite(actions).all()
    assert np.abs(actions - agent.policy(2).act(observations)).max() < 0.05  # weights are rounded to float16
    env = DreamVectorEnv(2, loaded, observation="frame")
    seen, _ = env.reset(seed=3)
    after, *_ = env.step(np.zeros((2, 3), np.float32))
    assert seen.shape == after.shape == (2, 64, 64, 3) and seen.dtype == np.uint8
    env.close()


def test_settings_that_a_v_would_ignore_are_refused() -> None:
    changed = GANConfig(rest_accuracy=0.7)
    check_vision(VisionConfig(model="vae-gan-small", gan=changed))
    check_vision(VisionConfig(model="patch-vae"))
    message = r"--vision.gan.rest-accuracy is for models that learn against a discriminator.*; conv-vae does not"
    with pytest.raises(UserError, match=message) as refused:
        check_vision(VisionConfig(gan=changed))
    assert "\n" not in str(refused.value)
