"""A vision model that learns against a discriminator: a VAE-GAN for sharper pictures.

Larsen et al., "Autoencoding beyond pixels using a learned similarity metric" (2016): the decoder of a VAE is also the
generator of a GAN, and reconstructions are compared with frames by the features of the discriminator as well. Layers
and sizes are those of the GAN-VAE for CarRacing that was published in `Rtlyc/world-models` (`WorldModels/gan.py`,
derived from `leoHeidel/vae-gan-tf2`), which trained until its discriminator won and was never joined to M and C.
What is different here, and why:

- All layers of the discriminator are used; there, the output of the first one was discarded.
- z is an ordinary Gaussian: mean and log variance are linear outputs, and KL is summed over the dimensions, with free
  nats. There, tanh bounded both, so that noise was never smaller than 0.6 and means never larger than 1.
- Group normalisation (Wu & He, 2018) replaces the batch norm, which ran on initial statistics and normalised nothing:
  a frame has the same z, whichever frames are encoded with it.
- Pixels count in the loss, too. There, their error was only reported, and pictures lacked what is in the frames.
- The generator's loss does not saturate (Goodfellow et al., 2014, section 3), and a discriminator that is too good
  rests (see :mod:`worldmodels.vision.discriminator`).
- Transposed kernels have four rows and columns instead of five, so that every pixel is made by equally many weights.
- Frames are shuffled, as for every V of this package.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldmodels.core.device import noise, precision
from worldmodels.core.fit import LearningRate, Loss, Objective
from worldmodels.core.seeds import Stream
from worldmodels.vision.base import Vision
from worldmodels.vision.config import VisionConfig
from worldmodels.vision.conv_vae import held_out_vae_loss, upcast, vae_loss
from worldmodels.vision.discriminator import (
    SLOPE,
    Discriminator,
    discriminator_loss,
    feature_error,
    generator_loss,
    group_norm,
)

_GRID = 8  # rows and columns of the coarsest features


class VAEGAN(Vision):
    """Encoder and generator of 64 x 64 RGB images with the published sizes; 11.6 million parameters at 32 dimensions.

    A frame takes 0.24 GFLOP to encode and 0.56 to decode, and about 9 in a training step.
    """

    name = "vae-gan"
    adversarial = True
    width = 64
    """Channels of the encoder's first layer; those of all others are multiples of it."""

    def __init__(self, latent_size: int = 32) -> None:
        super().__init__(latent_size)
        width, hidden = self.width, 8 * self.width
        self.encoder = nn.Sequential(*_down(3, width), *_down(width, 2 * width), *_down(2 * width, 4 * width))
        self.enc_hidden = nn.Sequential(nn.Linear(4 * width * _GRID**2, hidden), nn.LayerNorm(hidden), _activation())
        self.enc_mu = nn.Linear(hidden, latent_size)
        self.enc_logvar = nn.Linear(hidden, latent_size)
        self.dec_hidden = nn.Linear(latent_size, 4 * width * _GRID**2)
        self.generator = nn.Sequential(
            group_norm(4 * width),
            _activation(),
            *_up(4 * width, 4 * width),
            *_up(4 * width, 2 * width),
            *_up(2 * width, width // 2),
            nn.Conv2d(width // 2, 3, 5, padding=2),
        )

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and log variance of z, each (B, Z), for images (B, 3, 64, 64) in [0, 1]."""
        features = self.encoder(images.to(self.enc_mu.weight.dtype))
        hidden = self.enc_hidden(features.permute(0, 2, 3, 1).flatten(1))
        return upcast(self.enc_mu(hidden)), upcast(self.enc_logvar(hidden))

    def decode(self, z: Tensor) -> Tensor:
        """Return the images (B, 3, 64, 64) in [0, 1] of z (B, Z)."""
        hidden = self.dec_hidden(z.to(self.dec_hidden.weight.dtype))
        grid = hidden.view(len(z), _GRID, _GRID, 4 * self.width).permute(0, 3, 1, 2)
        return torch.sigmoid(self.generator(grid))

    def objectives(self, config: VisionConfig, seed: int) -> list[Objective[Tensor]]:
        """The discriminator learns first, then encoder and generator; both in the device's fastest precision.

        The discriminator is compared with as many pictures as there are frames: half of them decoded from the frames' z
        and half from the prior. These are made from z without its gradient: only the generator tries to deceive the
        discriminator, while the encoder learns from the frames themselves, as in the paper.
        """
        settings = config.gan
        device = next(self.parameters()).device
        discriminator = Discriminator(self.width).to(device)

        def encoded(images: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            """mu, logvar, a sample of z, and the z of the pictures that the discriminator sees, each (B, Z)."""
            mu, logvar = self.encode(images)
            shape = (len(images), self.latent_size)
            z = mu + torch.exp(logvar / 2) * noise(shape, seed, Stream.VISION_NOISE, step).to(images.device)
            prior = noise(shape, seed, Stream.VISION_PRIOR, step).to(images.device)
            half = len(images) // 2
            return mu, logvar, z, torch.cat([z[:half].detach(), prior[half:]])

        def tell_apart(images: Tensor, step: int) -> Loss:
            with precision(images.device):
                with torch.no_grad():
                    pictures = self.decode(encoded(images, step)[3])
                real, made = discriminator(images)[0], discriminator(pictures)[0]
            return discriminator_loss(real, made, len(images) // 2, settings.real_label, settings.rest_accuracy)

        def imitate(images: Tensor, step: int) -> Loss:
            with precision(images.device):
                mu, logvar, z, deceiving = encoded(images, step)
                reconstruction = self.decode(z)
                _, features = discriminator(reconstruction)
                with torch.no_grad():
                    _, wanted = discriminator(images)
                made, _ = discriminator(self.decode(deceiving))
            weights = config.kl_tolerance, config.foreground_weight
            total, parts = vae_loss(reconstruction, images, mu, logvar, *weights)
            feature, generator = feature_error(features, wanted), generator_loss(made)
            parts |= {"feature": feature.detach(), "generator": generator.detach()}
            return total + settings.feature_weight * feature + settings.generator_weight * generator, parts

        slower = LearningRate(config.lr * settings.discriminator_rate, final_fraction=0.1)
        judged = ("real", "reconstructed", "prior", "accuracy")
        betas = (0.5, 0.999)  # less momentum than usual, because both are moving targets of each other
        return [
            Objective(
                "discriminator",
                discriminator,
                tell_apart,
                tuple(f"discriminator_{part}" for part in judged),
                slower,
                betas=betas,
            ),
            Objective(
                "vae",
                self,
                imitate,
                ("reconstruction", "kl", "feature", "generator"),
                LearningRate(config.lr, final_fraction=0.1),
                betas=betas,
            ),
        ]

    def held_out_loss(self, images: Tensor, config: VisionConfig) -> dict[str, Tensor]:
        """Pixel error and KL for float32 images (B, 3, 64, 64), with z at its mean, as those of conv-vae."""
        return held_out_vae_loss(self, images, config)


class SmallVAEGAN(VAEGAN):
    """The same with a quarter of the channels, and about a fourteenth of the operations, for training without a GPU."""

    name = "vae-gan-small"
    width = 16


def _activation() -> nn.Module:
    return nn.LeakyReLU(SLOPE)


def _down(inputs: int, outputs: int) -> list[nn.Module]:
    """A convolution that halves rows and columns; the norm's shift makes a bias superfluous."""
    return [nn.Conv2d(inputs, outputs, 5, stride=2, padding=2, bias=False), group_norm(outputs), _activation()]


def _up(inputs: int, outputs: int) -> list[nn.Module]:
    """A transposed convolution that doubles rows and columns."""
    return [nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False), group_norm(outputs), _activation()]
