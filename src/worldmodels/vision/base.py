"""The interface of a vision model V, the registry of vision models, and conversions between frames and images."""

import dataclasses
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor, nn

from worldmodels.core.device import fast_bfloat16, precision
from worldmodels.core.errors import UserError
from worldmodels.core.fit import Objective
from worldmodels.core.registry import Registry
from worldmodels.core.settings import option_name
from worldmodels.vision.config import GANConfig, VisionConfig


class Vision(nn.Module, ABC):
    """A model that encodes images as latents z, and decodes latents to images. Legend: B batch, Z latent.

    Images are (B, 3, 64, 64) in [0, 1]. They may be channels-last in memory, and under autocast they may be bfloat16.
    """

    name = ""
    """Its name in the registry, which is stored in the metadata of agents."""
    adversarial = False
    """Whether it learns against a discriminator, with the settings ``vision.gan``."""

    def __init__(self, latent_size: int) -> None:
        super().__init__()
        self.latent_size = latent_size

    @abstractmethod
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of z, each (B, Z), for images (B, 3, 64, 64)."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Images (B, 3, 64, 64) in [0, 1] from z (B, Z)."""

    @abstractmethod
    def objectives(self, config: VisionConfig, seed: int) -> list[Objective[Tensor]]:
        """The training objectives, for batches of float32 images (B, 3, 64, 64) on the model's device.

        Random numbers must depend on the seed and the step alone. A network that only training needs, such as a
        discriminator, is created here and belongs to its objective, not to V.
        """

    @abstractmethod
    def held_out_loss(self, images: Tensor, config: VisionConfig) -> dict[str, Tensor]:
        """The loss of held-out float32 images (B, 3, 64, 64) by named parts; z is the mean, without sampling."""


VISIONS: Registry[type[Vision]] = Registry(
    "vision model",
    {
        "conv-vae": "worldmodels.vision.conv_vae:ConvVAE",
        "patch-vae": "worldmodels.vision.patch_vae:PatchVAE",
        "vae-gan": "worldmodels.vision.vae_gan:VAEGAN",
        "vae-gan-small": "worldmodels.vision.vae_gan:SmallVAEGAN",
    },
    "worldmodels.visions",
)
"""All vision models by name; other packages add theirs through the entry point group "worldmodels.visions"."""


def make_vision(name: str, latent_size: int) -> Vision:
    """A new, untrained V of the kind that is registered as ``name``; an unknown name is a :class:`UserError`."""
    vision = VISIONS.get(name)(latent_size)
    vision.name = name
    return vision


def check_vision(config: VisionConfig) -> None:
    """Raise a :class:`UserError` for a V that does not exist, and for settings that it would ignore."""
    if VISIONS.get(config.model).adversarial:
        return
    usual = GANConfig()
    for item in dataclasses.fields(usual):
        if getattr(config.gan, item.name) != getattr(usual, item.name):
            raise UserError(
                f"{option_name(f'vision.gan.{item.name}')} is for models that learn against a discriminator, such as "
                f"vae-gan; {config.model} does not: leave it out, or choose another --vision.model"
            )


def images_from_frames(frames: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Frames (N, 64, 64, 3) uint8 as images (N, 3, 64, 64) in [0, 1], channels-last in memory."""
    return frames.permute(0, 3, 1, 2).to(dtype).div_(255)


def rounded_images(frames: Tensor) -> Tensor:
    """Frames (N, 64, 64, 3) uint8 as the images (N, 3, 64, 64) that V is trained on and acts on.

    They are rounded to bfloat16 on every machine, so that V sees the same images everywhere. The result is bfloat16
    where that is fast, and the rounded numbers as float32 elsewhere.
    """
    images = images_from_frames(frames, torch.bfloat16)
    return images if fast_bfloat16(frames.device) else images.float()


@torch.inference_mode()
def encode_frames(vision: Vision, frames: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean and log variance of z, each (N, Z) float32, for frames (N, 64, 64, 3) uint8, in the agents' precision."""
    device = next(vision.parameters()).device
    with precision(device):
        mu, logvar = vision.encode(rounded_images(torch.from_numpy(frames).to(device)))
    return mu.float(), logvar.float()


@torch.inference_mode()
def decode_frames(vision: Vision, z: Tensor) -> np.ndarray:
    """The frames (N, 64, 64, 3) uint8 that V decodes from z (N, Z)."""
    device = next(vision.parameters()).device
    with precision(device):
        images = vision.decode(z.to(device))
    frames: np.ndarray = (images.float() * 255).round().byte().permute(0, 2, 3, 1).cpu().contiguous().numpy()
    return frames
