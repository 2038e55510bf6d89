"""The discriminator of a VAE-GAN, and the losses of both sides.

Three things keep the discriminator from winning, after which its loss would no longer tell the generator anything:
its target for frames is below 1 (one-sided label smoothing; Salimans et al., "Improved Techniques for Training GANs",
2016, section 3.4), its learning rate is lower than that of V, and it rests in every step in which it judges
more than a given share of the pictures rightly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldmodels.core.fit import Loss

SLOPE = 0.2  # of the leaky ReLU, for negative numbers
_CHANNELS_PER_GROUP = 8


def group_norm(channels: int) -> nn.GroupNorm:
    """Normalisation of groups of eight channels of one image, whatever the rest of the batch is."""
    return nn.GroupNorm(max(1, channels // _CHANNELS_PER_GROUP), channels)


class Discriminator(nn.Module):
    """Tells frames from pictures that V made. Only training needs it: it is no part of V and of no agent.

    width: the channels of V's first layer. At the published 64 it has 32, 128, 256 and 256 channels, and 6.8 million
    parameters.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        few, many = 2 * width, 4 * width
        self.first = nn.Conv2d(3, width // 2, 5, stride=2, padding=2)
        self.second = nn.Conv2d(width // 2, few, 5, stride=2, padding=2)
        self.norm2 = group_norm(few)
        self.third = nn.Conv2d(few, many, 5, stride=2, padding=2)
        self.norm3 = group_norm(many)
        self.features = nn.Conv2d(many, many, 5, padding=2)
        self.norm4 = group_norm(many)
        self.hidden = nn.Linear(64 * many, many)
        self.norm5 = nn.LayerNorm(many)
        self.logit = nn.Linear(many, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The logits (B,) that images (B, 3, 64, 64) are frames, and features (B, 4 * width, 8, 8) of the images."""
        h = _leaky(self.first(images))
        h = self.norm2(_leaky(self.second(h)))
        h = _leaky(self.norm3(self.third(h)))
        features = self.features(h)
        h = _leaky(self.norm4(features)).permute(0, 2, 3, 1).flatten(1)
        return self.logit(_leaky(self.norm5(self.hidden(h))))[:, 0].float(), features.float()


def _leaky(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, SLOPE)


def discriminator_loss(real: Tensor, made: Tensor, decoded: int, real_label: float, rest_accuracy: float) -> Loss:
    """The discriminator's cross-entropy in nats, half of it for frames and half for pictures of V.

    real: logits (B,) of frames, whose target is ``real_label``; made: logits (B,) of pictures, whose target is 0, of
    which the first ``decoded`` come from z of frames and the others from the prior. Parts: the cross-entropy of the
    three kinds, and the share of the 2B images that are judged rightly. Above ``rest_accuracy``, the total requires no
    gradient, so that the discriminator does not learn in this step.
    """
    frames = functional.binary_cross_entropy_with_logits(real, torch.full_like(real, real_label))
    pictures = functional.binary_cross_entropy_with_logits(made, torch.zeros_like(made), reduction="none")
    total = (frames + pictures.mean()) / 2
    accuracy = torch.cat([real > 0, made <= 0]).float().mean()
    parts = {
        "discriminator_real": frames.detach(),
        "discriminator_reconstructed": pictures[:decoded].detach().mean(),
        "discriminator_prior": pictures[decoded:].detach().mean(),
        "discriminator_accuracy": accuracy,
    }
    return (total.detach() if accuracy > rest_accuracy else total), parts


def generator_loss(made: Tensor) -> Tensor:
    """Cross-entropy in nats of the logits (B,) of the generator's pictures with the target 1: it does not saturate."""
    return functional.binary_cross_entropy_with_logits(made, torch.ones_like(made))


def feature_error(features: Tensor, wanted: Tensor) -> Tensor:
    """Squared error of features (B, C, rows, columns), as a share of the squares of ``wanted``.

    A share, because the discriminator changes the scale of its features while it learns.
    """
    return (features - wanted).square().sum() / wanted.square().sum().clamp_min(1e-12)
