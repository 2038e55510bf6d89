"""The VAE-GAN: its losses are those on paper, each side learns from its own, and neither wins."""

import csv
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from worldmodels.core.fit import Objective, Schedule, fit
from worldmodels.vision import vae_gan
from worldmodels.vision.base import images_from_frames
from worldmodels.vision.config import GANConfig, VisionConfig
from worldmodels.vision.conv_vae import vae_loss
from worldmodels.vision.discriminator import Discriminator, discriminator_loss, feature_error, generator_loss
from worldmodels.vision.vae_gan import VAEGAN, SmallVAEGAN

NEVER_RESTS = 1.0


class Tiny(VAEGAN):
    """With four channels where the published V has 64, so that it learns in seconds."""

    width = 4


def objectives(kind: type[VAEGAN] = Tiny, **gan: float) -> tuple[VAEGAN, list[Objective[Tensor]]]:
    """A new V and its two objectives; equal seeds make equal weights."""
    torch.manual_seed(0)
    vision = kind(4)
    settings = VisionConfig(model="vae-gan", latent_size=4, lr=1e-3, gan=GANConfig(**gan))  # type: ignore[arg-type]
    return vision, vision.objectives(settings, 1)


def gradients(module: torch.nn.Module, total: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*module.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(total, parameters), strict=True))


def cross_entropy(logit: float, label: float) -> float:
    chance = 1 / (1 + np.exp(-logit))
    return float(-label * np.log(chance) - (1 - label) * np.log(1 - chance))


def test_the_discriminator_s_loss_is_the_cross_entropy_with_a_smoothed_label_for_frames() -> None:
    real, made = (torch.tensor(logits).double() for logits in ([0.5, -1.0, 2.0, 3.0], [-0.25, 0.25, -2.0, 1.5]))
    total, parts = discriminator_loss(real, made, 1, 0.9, NEVER_RESTS)
    frames = np.mean([cross_entropy(logit, 0.9) for logit in real.tolist()])
    decoded, prior = cross_entropy(-0.25, 0), np.mean([cross_entropy(logit, 0) for logit in (0.25, -2.0, 1.5)])
    assert parts["discriminator_real"].item() == pytest.approx(frames, rel=1e-12)
    assert parts["discriminator_reconstructed"].item() == pytest.approx(decoded, rel=1e-12)
    assert parts["discriminator_prior"].item() == pytest.approx(prior, rel=1e-12)
    assert total.item() == pytest.approx(frames / 2 + (decoded + 3 * prior) / 8, rel=1e-12)
    assert parts["discriminator_accuracy"].item() == pytest.approx(5 / 8)  # three frames and two pictures


def test_the_discriminator_rests_while_it_judges_too_much_rightly() -> None:
    real, made = torch.ones(4, requires_grad=True), -torch.ones(4)
    made[0] = 1.0  # seven of eight are right
    assert discriminator_loss(real, made, 2, 0.9, 0.9)[0].requires_grad
    assert not discriminator_loss(real, made, 2, 0.9, 0.8)[0].requires_grad
    assert discriminator_loss(real, -torch.ones(4), 2, 0.9, NEVER_RESTS)[0].requires_grad


def test_the_generator_s_loss_keeps_its_gradient_when_the_discriminator_is_sure() -> None:
    logits = torch.tensor([-9.0, 0.0, 9.0], dtype=torch.float64, requires_grad=True)
    loss = generator_loss(logits)
    loss.backward()
    assert loss.item() == pytest.approx(np.mean([cross_entropy(logit, 1) for logit in (-9.0, 0.0, 9.0)]), rel=1e-12)
    assert logits.grad is not None
    assert logits.grad.tolist() == pytest.approx([-1 / (1 + np.exp(logit)) / 3 for logit in (-9.0, 0.0, 9.0)])


def test_the_error_of_features_is_a_share_of_their_squares() -> None:
    torch.manual_seed(0)
    features, wanted = torch.randn(2, 3, 4, 4).double(), torch.randn(2, 3, 4, 4).double()
    x, y = features.numpy(), wanted.numpy()
    assert feature_error(features, wanted).item() == pytest.approx(((x - y) ** 2).sum() / (y**2).sum(), rel=1e-12)
    assert feature_error(7 * features, 7 * wanted).item() == pytest.approx(feature_error(features, wanted).item())
    assert feature_error(wanted, wanted).item() == 0 and feature_error(wanted, 0 * wanted).isfinite()


def test_the_total_is_the_weighted_sum_of_its_parts() -> None:
    _, (_, imitate) = objectives(feature_weight=30.0, generator_weight=2.0)
    total, parts = imitate.loss(torch.rand(4, 3, 64, 64), 0)
    weighted = parts["reconstruction"] + parts["kl"] + 30 * parts["feature"] + 2 * parts["generator"]
    assert total.item() == pytest.approx(weighted.item(), rel=1e-5)


def test_without_its_discriminator_it_is_a_vae_with_the_paper_s_loss() -> None:
    vision, (_, imitate) = objectives(feature_weight=0.0, generator_weight=0.0)
    images = torch.rand(4, 3, 64, 64)
    total, _ = imitate.loss(images, 3)
    mu, logvar = vision.encode(images)
    eps = vae_gan.noise((4, 4), 1, vae_gan.Stream.VISION_NOISE, 3)
    wanted, _ = vae_loss(vision.decode(mu + torch.exp(logvar / 2) * eps), images, mu, logvar, 0.5, 0.0)
    assert total.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_only_the_generator_learns_to_deceive() -> None:
    images, found = torch.rand(4, 3, 64, 64), []
    for weight in (0.0, 50.0):
        vision, (_, imitate) = objectives(generator_weight=weight)
        found.append(gradients(vision, imitate.loss(images, 0)[0]))
    honest, deceiving = found
    for name in honest:
        change = (honest[name] - deceiving[name]).abs().max() / honest[name].abs().max()
        assert (change < 1e-4) == name.startswith("enc"), f"{name}: {change}"


def test_each_side_learns_from_its_own_loss_and_leaves_the_other_alone(tmp_path: Path) -> None:
    images = torch.rand(8, 3, 64, 64)

    def trained(rest: float, chosen: slice, folder: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        vision, both = objectives(rest_accuracy=rest)
        critic = both[0].module
        before = [{name: value.clone() for name, value in one.state_dict().items()} for one in (critic, vision)]
        fit("vision", both[chosen], lambda step: iter([images] * 3), Schedule(2), tmp_path / folder, 8, "")
        after = [one.state_dict() for one in (critic, vision)]
        moved, also = ({name: now[name] - then[name] for name in then} for then, now in zip(before, after, strict=True))
        return moved, also

    critic, vision = trained(NEVER_RESTS, slice(0, 1), "critic alone")
    assert all(change.abs().max() > 0 for change in critic.values()) and not any(map(torch.any, vision.values()))
    critic, vision = trained(NEVER_RESTS, slice(1, 2), "V alone")
    assert not any(map(torch.any, critic.values())) and all(change.abs().max() > 0 for change in vision.values())


def test_a_discriminator_at_rest_does_not_change_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, both = objectives(rest_accuracy=0.9)
    critic = both[0].module
    monkeypatch.setattr(Discriminator, "forward", _sure(Discriminator.forward))
    before = {name: value.clone() for name, value in critic.state_dict().items()}
    fit("vision", both, lambda step: iter([torch.rand(4, 3, 64, 64)] * 4), Schedule(3), tmp_path, 4, "")
    assert all(torch.equal(value, before[name]) for name, value in critic.state_dict().items())
    with open(tmp_path / "metrics.csv", newline="") as file:
        assert [float(row["discriminator_accuracy"]) for row in csv.DictReader(file)] == [1.0]


def _sure(forward):  # type: ignore[no-untyped-def]
    """A forward pass whose logits are right at every second call, first for frames and then for pictures."""
    calls = [0]

    def surely(self: Discriminator, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, features = forward(self, images)
        calls[0] += 1
        # Calls of a step: frames, pictures; then V's objective: reconstructions, frames, pictures.
        return logits * 0 + (5.0 if calls[0] % 5 == 1 else -5.0), features

    return surely


def squares(count: int) -> Tensor:
    """Frames (count, 64, 64, 3) of one bright square each, whose place and colour differ."""
    random = np.random.default_rng(3)
    frames = np.full((count, 64, 64, 3), 40, np.uint8)
    for frame in frames:
        row, column = random.integers(0, 48, 2)
        frame[row : row + 16, column : column + 16] = random.integers(120, 256, 3)
    return torch.from_numpy(frames)


@pytest.mark.slow
def test_neither_side_wins_on_a_toy_stream(tmp_path: Path) -> None:
    """A discriminator that may learn fast and at every step is soon sure of everything; one that rests is not."""
    images = images_from_frames(squares(512))
    accuracy, entropy, errors = dict[str, float](), dict[str, float](), dict[str, list[float]]()
    for name, gan in {
        "balanced": {},
        "unbalanced": {"rest_accuracy": NEVER_RESTS, "discriminator_rate": 1.0, "real_label": 1.0},
    }.items():
        _, both = objectives(**gan)
        seen: list[tuple[float, float]] = []

        def watched(batch: Tensor, step: int, seen: list[tuple[float, float]] = seen, judge=both[0].loss):  # type: ignore[no-untyped-def]
            total, parts = judge(batch, step)
            seen.append((parts["discriminator_accuracy"].item(), total.item()))
            return total, parts

        both[0] = replace(both[0], loss=watched)
        batches = [images[start : start + 8] for start in range(0, 512, 8)]
        fit("vision", both, lambda step: itertools.cycle(batches), Schedule(80), tmp_path / name, 8, "")  # noqa: B023
        accuracy[name], entropy[name] = np.mean(seen[40:], axis=0).tolist()
        with open(tmp_path / name / "metrics.csv", newline="") as file:
            errors[name] = [float(row["reconstruction"]) for row in csv.DictReader(file)]
    assert 0.5 < accuracy["balanced"] < 0.99 and entropy["balanced"] > 0.3, (accuracy, entropy)
    assert accuracy["unbalanced"] > accuracy["balanced"] and entropy["unbalanced"] < entropy["balanced"] / 2
    assert errors["balanced"][-1] < 0.5 * errors["balanced"][0], errors


def test_the_published_sizes_are_those_of_the_default() -> None:
    vision, critic = VAEGAN(512), Discriminator(VAEGAN.width)
    convolutions = [layer for layer in vision.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert [tuple(layer.weight.shape[:2]) for layer in convolutions] == [(64, 3), (128, 64), (256, 128), (3, 32)]
    transposed = [layer for layer in vision.modules() if isinstance(layer, torch.nn.ConvTranspose2d)]
    assert [tuple(layer.weight.shape[:2]) for layer in transposed] == [(256, 256), (256, 128), (128, 32)]
    assert vision.enc_hidden[0].weight.shape == (512, 8 * 8 * 256)  # type: ignore[union-attr]
    assert vision.dec_hidden.weight.shape == (16_384, 512)
    layers = [critic.first, critic.second, critic.third, critic.features]
    assert [layer.out_channels for layer in layers] == [32, 128, 256, 256]
    assert critic.hidden.weight.shape == (256, 16_384)
    logits, features = critic(torch.rand(2, 3, 64, 64))
    assert logits.shape == (2,) and features.shape == (2, 256, 8, 8)
    assert SmallVAEGAN.width == VAEGAN.width // 4
