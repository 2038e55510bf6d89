"""What a V is, and V by name: frames into latents and back."""

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor, nn

from worldmodels.core.device import fast_bfloat16, precision
from worldmodels.core.fit import Objective
from worldmodels.core.registry import Registry
from worldmodels.vision.config import VisionConfig


class Vision(nn.Module, ABC):
    """A model that encodes images as latents and decodes latents as images. Legend: B batch, Z latent.

    Images are (B, 3, 64, 64) in [0, 1]. They may be channels-last in memory, and under autocast they may be bfloat16.
    """

    name = ""
    """Its name in the registry, which an agent's metadata keeps."""

    def __init__(self, latent_size: int) -> None:
        super().__init__()
        self.latent_size = latent_size

    @abstractmethod
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of z, each (B, Z), for images (B, 3, 64, 64)."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """The images (B, 3, 64, 64) of z (B, Z)."""

    @abstractmethod
    def objectives(self, config: VisionConfig, seed: int) -> list[Objective[Tensor]]:
        """The losses by which it is trained, on batches of float32 images (B, 3, 64, 64) that lie on its device.

        Random numbers depend on the seed and the step alone. A network that only training needs, such as a
        discriminator, is made here and belongs to its objective, not to V.
        """

    @abstractmethod
    def held_out_loss(self, images: Tensor, config: VisionConfig) -> dict[str, Tensor]:
        """The loss, by named parts, of float32 images that it was not trained on; z is its mean and not drawn."""


VISIONS: Registry[type[Vision]] = Registry(
    "vision model", {"conv-vae": "worldmodels.vision.conv_vae:ConvVAE"}, "worldmodels.visions"
)
"""Every V by its name."""


def make_vision(name: str, latent_size: int) -> Vision:
    """A new, untrained V of the registered kind ``name``."""
    vision = VISIONS.get(name)(latent_size)
    vision.name = name
    return vision


def images_from_frames(frames: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Frames (N, 64, 64, 3) uint8 as images (N, 3, 64, 64) in [0, 1], channels-last in memory."""
    return frames.permute(0, 3, 1, 2).to(dtype).div_(255)


def rounded_images(frames: Tensor) -> Tensor:
    """Frames (N, 64, 64, 3) uint8 as the images (N, 3, 64, 64) that V is trained on and acts on.

    They are rounded to bfloat16 on every machine, so that all see the same ones. Where bfloat16 is not fast, the
    rounded numbers come as float32.
    """
    images = images_from_frames(frames, torch.bfloat16)
    return images if fast_bfloat16(frames.device) else images.float()


@torch.inference_mode()
def encode_frames(vision: Vision, frames: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean and log variance of z, each (N, Z) float32, of frames (N, 64, 64, 3) uint8, as agents see them."""
    device = next(vision.parameters()).device
    with precision(device):
        mu, logvar = vision.encode(rounded_images(torch.from_numpy(frames).to(device)))
    return mu.float(), logvar.float()


@torch.inference_mode()
def decode_frames(vision: Vision, z: Tensor) -> np.ndarray:
    """The frames (N, 64, 64, 3) uint8 that V imagines for z (N, Z)."""
    device = next(vision.parameters()).device
    with precision(device):
        images = vision.decode(z.to(device))
    frames: np.ndarray = (images.float() * 255).round().byte().permute(0, 2, 3, 1).cpu().contiguous().numpy()
    return frames
