"""The vision model V: the convolutional variational autoencoder of Ha & Schmidhuber, "World Models" (2018).

All convolutions are unpadded with stride 2, as in the authors' code (`hardmaru/WorldModelsExperiments`,
`carracing/vae/vae.py`). Parameters keep PyTorch's ordinary convolution shapes and layout. Under autocast
the layers run in its dtype, and the outputs of the encoder are float32 again.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldmodels.core.device import noise, precision
from worldmodels.core.fit import LearningRate, Loss, Objective
from worldmodels.core.seeds import Stream
from worldmodels.vision import cpu_layers
from worldmodels.vision.base import Vision
from worldmodels.vision.config import VisionConfig

IMAGE_CHANNELS = 3
HIDDEN_SIZE = 1024  # the encoder's flattened 2 x 2 x 256 output, and the decoder's 1 x 1 x 1024 input


class VAEOutput(NamedTuple):
    """The outputs of the autoencoder for a batch of B images, with Z latent dimensions."""

    reconstruction: Tensor  # (B, 3, 64, 64) in [0, 1]
    mu: Tensor  # (B, Z)
    logvar: Tensor  # (B, Z), natural logarithm of the variance


class ConvVAE(Vision):
    """Encoder and decoder of 64 x 64 RGB images; 4,348,547 parameters at the paper's 32 latent dimensions.

    The encoder's 2 x 2 x 256 output is flattened in (row, column, channel) order, as in the authors' code.
    """

    name = "conv-vae"

    def __init__(self, latent_size: int = 32) -> None:
        super().__init__(latent_size)
        self.enc_conv1 = nn.Conv2d(IMAGE_CHANNELS, 32, 4, stride=2)
        self.enc_conv2 = nn.Conv2d(32, 64, 4, stride=2)
        self.enc_conv3 = nn.Conv2d(64, 128, 4, stride=2)
        self.enc_conv4 = nn.Conv2d(128, 256, 4, stride=2)
        self.enc_mu = nn.Linear(HIDDEN_SIZE, latent_size)
        self.enc_logvar = nn.Linear(HIDDEN_SIZE, latent_size)
        self.dec_fc = nn.Linear(latent_size, HIDDEN_SIZE)
        self.dec_deconv1 = nn.ConvTranspose2d(HIDDEN_SIZE, 128, 5, stride=2)
        self.dec_deconv2 = nn.ConvTranspose2d(128, 64, 5, stride=2)
        self.dec_deconv3 = nn.ConvTranspose2d(64, 32, 6, stride=2)
        self.dec_deconv4 = nn.ConvTranspose2d(32, IMAGE_CHANNELS, 6, stride=2)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and log variance of z, each (B, Z), for images (B, 3, 64, 64) in [0, 1]."""
        h = images.to(self._dtype(images.device))
        for layer in (self.enc_conv1, self.enc_conv2, self.enc_conv3, self.enc_conv4):
            if _is_tuned(h):
                h = cpu_layers.convolution_relu(h, *_cast(layer, h.dtype))
            else:
                h = functional.relu(layer(h))
        h = h.permute(0, 2, 3, 1).flatten(1)
        return upcast(self.enc_mu(h)), upcast(self.enc_logvar(h))

    def decode_logits(self, z: Tensor) -> Tensor:
        """Return the logits (B, 3, 64, 64) of the images of z (B, Z): their values before the sigmoid."""
        h = self.dec_fc(z.to(self._dtype(z.device)))
        if not _is_tuned(h):
            h = functional.relu(self.dec_deconv1(h[:, :, None, None]))
            h = functional.relu(self.dec_deconv2(h))
            h = functional.relu(self.dec_deconv3(h))
            return self.dec_deconv4(h)  # type: ignore[no-any-return]
        h = cpu_layers.transposed_from_vector_relu(h, *_cast(self.dec_deconv1, h.dtype))
        h = cpu_layers.transposed_relu(h, *_cast(self.dec_deconv2, h.dtype))
        h = cpu_layers.transposed_relu(h, *_cast(self.dec_deconv3, h.dtype))
        return cpu_layers.transposed_to_image(h, *_cast(self.dec_deconv4, h.dtype))

    def decode(self, z: Tensor) -> Tensor:
        """Return the images (B, 3, 64, 64) in [0, 1] of z (B, Z)."""
        return torch.sigmoid(self.decode_logits(z))

    def forward(self, images: Tensor, noise: Tensor) -> VAEOutput:
        """Encode images (B, 3, 64, 64) in [0, 1], draw z with standard normal noise (B, Z), and decode it."""
        mu, logvar = self.encode(images)
        z = mu + torch.exp(logvar / 2) * noise
        return VAEOutput(self.decode(z), mu, logvar)

    def objectives(self, config: VisionConfig, seed: int) -> list[Objective[Tensor]]:
        """The paper's loss, in the device's fastest precision."""
        return vae_objectives(self, config, seed)

    def held_out_loss(self, images: Tensor, config: VisionConfig) -> dict[str, Tensor]:
        """The two terms of the paper's loss for float32 images (B, 3, 64, 64), with z at its mean."""
        return held_out_vae_loss(self, images, config)

    def _dtype(self, device: torch.device) -> torch.dtype:
        """The dtype in which the layers run."""
        if torch.is_autocast_enabled(device.type):
            return torch.get_autocast_dtype(device.type)
        return self.dec_fc.weight.dtype


def _is_tuned(x: Tensor) -> bool:
    # The arrangements for CPUs are slower elsewhere and would make exported graphs long.
    return x.device.type == "cpu" and not torch.compiler.is_exporting()


def _cast(layer: nn.Module, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor) and isinstance(bias, Tensor)
    return weight.to(dtype), bias.to(dtype)


def upcast(x: Tensor) -> Tensor:
    """Numbers of half precision as float32; others unchanged."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def vae_objectives(vision: Vision, config: VisionConfig, seed: int) -> list[Objective[Tensor]]:
    """The training of a V by :func:`vae_loss` alone, in the device's fastest precision."""

    def loss(images: Tensor, step: int) -> Loss:
        eps = noise((len(images), vision.latent_size), seed, Stream.VISION_NOISE, step).to(images.device)
        with precision(images.device):
            mu, logvar = vision.encode(images)
            reconstruction = vision.decode(mu + torch.exp(logvar / 2) * eps)
        return vae_loss(reconstruction, images, mu, logvar, config.kl_tolerance, config.foreground_weight)

    return [Objective("vae", vision, loss, ("reconstruction", "kl"), LearningRate(config.lr, final_fraction=0.1))]


def held_out_vae_loss(vision: Vision, images: Tensor, config: VisionConfig) -> dict[str, Tensor]:
    """The two terms of :func:`vae_loss` for float32 images (B, 3, 64, 64), with z at its mean."""
    mu, logvar = vision.encode(images)
    return vae_loss(vision.decode(mu), images, mu, logvar, config.kl_tolerance, config.foreground_weight)[1]


def vae_loss(
    reconstruction: Tensor,
    images: Tensor,
    mu: Tensor,
    logvar: Tensor,
    kl_tolerance: float = 0.5,
    foreground_weight: float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the paper's loss and its two terms, as float32 scalars (float64 for float64 arguments).

    "reconstruction" is the squared error summed over the pixels of (B, 3, 64, 64) images in [0, 1], averaged
    over the batch. "kl" is the divergence of N(mu, exp(logvar)) from N(0, 1) in nats, summed over the Z
    latent dimensions, clamped per image to at least `kl_tolerance` * Z, and averaged over the batch. The loss
    is their sum. With a `foreground_weight` above 0 (not in the paper) the squared error of a pixel is multiplied by
    1 + foreground_weight * d, where d in [0, 1] is the absolute difference at that pixel between the image and the mean
    image of the batch, averaged over colours. This gives more weight to small moving objects, which contribute little
    to the unweighted error.
    """
    reconstruction, mu, logvar = upcast(reconstruction), upcast(mu), upcast(logvar)
    images = images.to(reconstruction.dtype)
    squares = (reconstruction - images).square()
    if foreground_weight > 0:
        difference = (images - images.mean(dim=0, keepdim=True)).abs().mean(dim=1, keepdim=True)
        squares = squares * (1 + foreground_weight * difference)
    error = squares.sum(dim=(1, 2, 3)).mean()
    divergence = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(dim=1)
    kl = divergence.clamp_min(kl_tolerance * mu.shape[1]).mean()
    return error + kl, {"reconstruction": error.detach(), "kl": kl.detach()}
