"""What a V is: made by name, given frames, trained on frames; a second one needs nothing but its own class."""

import csv
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from worldmodels.core import interrupt
from worldmodels.core.device import noise
from worldmodels.core.errors import UserError
from worldmodels.core.fit import CHECKPOINT, LearningRate, Loss, Objective
from worldmodels.vision import base
from worldmodels.vision.base import (
    VISIONS,
    Vision,
    decode_frames,
    encode_frames,
    images_from_frames,
    make_vision,
    rounded_images,
)
from worldmodels.vision.config import VisionConfig
from worldmodels.vision.conv_vae import ConvVAE
from worldmodels.vision.train import train_vision

CPU = torch.device("cpu")


class Frames:
    """Frames in memory, as a shard of one episode; ``seed`` decides what is on them."""

    def __init__(self, count: int, seed: int) -> None:
        self.lengths = np.array([count - 1])
        stream = np.random.default_rng(seed)
        self._frames = np.ascontiguousarray(
            np.broadcast_to(stream.integers(0, 256, (count, 1, 1, 3), dtype=np.uint8), (count, 64, 64, 3))
        )

    @property
    def num_frames(self) -> int:
        return len(self._frames)

    def frames(self, start: int, stop: int) -> np.ndarray:
        return self._frames[start:stop]


SHARDS = [Frames(700, 1), Frames(800, 2)]


def adversary_step(step: int) -> None:
    """Called by the second V in every step between its two objectives."""


class Colours(Vision):
    """A second V: it encodes the mean colour, and learns against a discriminator that is no part of it."""

    def __init__(self, latent_size: int) -> None:
        super().__init__(latent_size)
        self.encoder, self.decoder = nn.Linear(3, 2 * latent_size), nn.Linear(latent_size, 3)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = self.encoder(images.mean(dim=(2, 3))).chunk(2, dim=1)
        return mu, logvar

    def decode(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.decoder(z))[:, :, None, None].expand(-1, -1, 64, 64)

    def objectives(self, config: VisionConfig, seed: int) -> list[Objective[Tensor]]:
        critic = nn.Linear(3, 1)

        def imagined(images: Tensor, step: int) -> Tensor:
            mu, logvar = self.encode(images)
            return self.decode(mu + torch.exp(logvar / 2) * noise(tuple(mu.shape), seed, 7, step))

        def judged(images: Tensor) -> Tensor:
            return torch.as_tensor(critic(images.mean(dim=(2, 3))))

        def tell_apart(images: Tensor, step: int) -> Loss:
            fake = nn.functional.softplus(judged(imagined(images, step))).mean()
            total = nn.functional.softplus(-judged(images)).mean() + fake
            return total, {"told_apart": total}

        def imitate(images: Tensor, step: int) -> Loss:
            adversary_step(step)
            z = imagined(images, step)
            error = (z - images).square().mean()
            return error + 0.01 * nn.functional.softplus(-judged(z)).mean(), {"error": error}

        lr = LearningRate(config.lr, final_fraction=0.1)
        return [
            Objective("critic", critic, tell_apart, ("told_apart",), lr),
            Objective("vision", self, imitate, ("error",), lr),
        ]

    def held_out_loss(self, images: Tensor, config: VisionConfig) -> dict[str, Tensor]:
        return {"error": (self.decode(self.encode(images)[0]) - images).square().mean()}


@pytest.fixture
def colours() -> Iterator[None]:
    VISIONS.register("colours", Colours)
    yield
    VISIONS.unregister("colours")


def test_a_v_is_made_by_name_and_knows_its_name(colours: None) -> None:
    assert isinstance(make_vision("conv-vae", 8), ConvVAE) and make_vision("conv-vae", 8).latent_size == 8
    assert make_vision("conv-vae", 8).name == ConvVAE(8).name == "conv-vae"
    assert isinstance(make_vision("colours", 4), Colours) and make_vision("colours", 4).name == "colours"
    assert {"colours", "conv-vae"} <= set(VISIONS.names())


def test_an_unknown_v_is_refused_and_the_nearest_name_is_said() -> None:
    with pytest.raises(UserError, match="unknown vision model 'conv-vea'; did you mean 'conv-vae'"):
        make_vision("conv-vea", 8)


def test_a_v_made_with_a_seed_is_the_same_one_by_name_and_by_class() -> None:
    visions = []
    for make in (lambda: make_vision("conv-vae", 8), lambda: ConvVAE(8)):
        torch.manual_seed(5)
        visions.append(make().state_dict())
    assert all(torch.equal(one, other) for one, other in zip(*(v.values() for v in visions), strict=True))


def test_frames_become_images_between_zero_and_one_with_channels_last() -> None:
    frames = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    images = images_from_frames(frames)
    assert images.shape == (3, 3, 64, 64) and images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal((images * 255).round().byte().permute(0, 2, 3, 1), frames)
    rough = images_from_frames(frames, torch.bfloat16)
    assert rough.dtype == torch.bfloat16 and (rough.float() - images).abs().max() < 0.004


def test_every_machine_sees_the_same_rounded_images(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    seen = []
    for fast in (True, False):
        monkeypatch.setattr(base, "fast_bfloat16", lambda device, fast=fast: fast)
        seen.append(rounded_images(frames))
    assert [one.dtype for one in seen] == [torch.bfloat16, torch.float32]
    assert torch.equal(seen[0].float(), seen[1])
    assert all(one.is_contiguous(memory_format=torch.channels_last) for one in seen)


def test_encoding_and_decoding_frames_is_what_v_does_with_images() -> None:
    torch.manual_seed(0)
    vision = ConvVAE(8)
    frames = SHARDS[0].frames(0, 5)
    mu, logvar = encode_frames(vision, frames)
    assert mu.shape == logvar.shape == (5, 8) and mu.dtype == logvar.dtype == torch.float32
    with torch.no_grad():
        exact, _ = vision.encode(images_from_frames(torch.from_numpy(frames)))
        images = vision.decode(mu.clone())
    assert (mu - exact).abs().max() < 0.02
    imagined = decode_frames(vision, mu)
    assert imagined.shape == (5, 64, 64, 3) and imagined.dtype == np.uint8 and imagined.flags.c_contiguous
    wanted = (images * 255).permute(0, 2, 3, 1).numpy()
    assert np.abs(imagined - wanted).max() < 2.5


def config(**changes: float | str) -> VisionConfig:
    return VisionConfig(**{"latent_size": 4, "epochs": 1.5, "batch": 32, "window": 4, "lr": 0.05} | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["conv-vae", "colours"])
def test_training_a_v_logs_its_own_columns_and_measures_it_on_held_out_frames(
    model: str, colours: None, tmp_path: Path
) -> None:
    lr = 1e-3 if model == "conv-vae" else 0.05
    settings = config(model=model, lr=lr, epochs=0.05 if model == "conv-vae" else 8)
    vision, held_out = train_vision(SHARDS, settings, 1, CPU, tmp_path)
    assert vision.name == model and vision.latent_size == 4
    with open(tmp_path / "metrics.csv", newline="") as file:
        logged = list(csv.DictReader(file))
    columns = {"conv-vae": ["reconstruction", "kl"], "colours": ["told_apart", "error"]}[model]
    assert list(logged[0]) == ["step", *columns, "loss", "lr", "vision_per_s"]
    names = {"conv-vae": {"held_out_reconstruction", "held_out_kl"}, "colours": {"held_out_error"}}[model]
    assert set(held_out) == names
    if model == "colours":
        assert float(logged[-1]["error"]) < 0.5 * float(logged[0]["error"]) and held_out["held_out_error"] < 0.02
        assert "critic.weight" not in vision.state_dict()


def test_the_training_of_a_second_v_resumes_to_the_bit(
    colours: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(model="colours")
    wanted, _ = train_vision(SHARDS, settings, 1, CPU, tmp_path / "whole")

    def interrupted(step: int) -> None:
        if step == 25:
            interrupt._received = 15

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[__name__], "adversary_step", interrupted)
        patch.setattr(interrupt, "_received", None)
        with pytest.raises(interrupt.Interrupted):
            train_vision(SHARDS, settings, 1, CPU, tmp_path / "cut")
    found, _ = train_vision(SHARDS, settings, 1, CPU, tmp_path / "cut")
    for name, value in wanted.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


@pytest.mark.parametrize("change", ["seed", "settings", "frames", "identity"])
def test_a_training_does_not_go_on_from_the_checkpoint_of_another(change: str, colours: None, tmp_path: Path) -> None:
    settings = config(model="colours", epochs=0.2)
    train_vision(SHARDS, settings, 1, CPU, tmp_path, identity="A")
    assert (tmp_path / CHECKPOINT).exists()
    train_vision(SHARDS, settings, 1, CPU, tmp_path, identity="A")
    seed = 2 if change == "seed" else 1
    other = config(model="colours", epochs=0.3) if change == "settings" else settings
    shards = SHARDS[:1] if change == "frames" else SHARDS
    with pytest.raises(UserError, match="does not belong to this stage"):
        train_vision(shards, other, seed, CPU, tmp_path, identity="B" if change == "identity" else "A")


def test_a_second_training_begins_with_given_weights(tmp_path: Path) -> None:
    torch.manual_seed(9)
    start = ConvVAE(4).state_dict()
    begun, _ = train_vision(SHARDS, config(lr=1e-9, epochs=0.01), 1, CPU, tmp_path, start)
    for name, value in begun.state_dict().items():
        assert torch.allclose(value, start[name], atol=1e-6), name


def test_settings_need_no_heavy_library() -> None:
    code = (
        "import sys, types; package = types.ModuleType('worldmodels'); package.__path__ = [sys.argv[1]]; "
        "sys.modules['worldmodels'] = package; import worldmodels.vision.config, worldmodels.memory.config; "
        "heavy = {'torch', 'numpy', 'gymnasium', 'zarr'} & set(sys.modules); assert not heavy, heavy"
    )
    folder = str(Path(base.__file__).parents[1])
    subprocess.run([sys.executable, "-c", code, folder], check=True)
