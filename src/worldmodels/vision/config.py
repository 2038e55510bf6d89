"""Settings of V."""

from dataclasses import dataclass

from worldmodels.core.settings import number, part, text


@dataclass(frozen=True)
class GANConfig:
    """How a V learns against a discriminator; only vae-gan and vae-gan-small do, and other models refuse changes."""

    feature_weight: float = number(100.0, low=0)
    """Weight of the error of the discriminator's features, which is a share of their squares, beside the squared
    error of the pixels and the KL divergence."""
    generator_weight: float = number(10.0, low=0)
    """Weight of the generator's loss: the nats by which the discriminator does not take its pictures for frames."""
    discriminator_rate: float = number(0.5, above=0)
    """The discriminator's learning rate, as a fraction of vision.lr."""
    real_label: float = number(0.9, low=0.5, high=1)
    """The discriminator's target for frames; below 1, it never becomes quite sure. Its target for pictures is 0."""
    rest_accuracy: float = number(0.8, low=0.5, high=1)
    """The discriminator does not learn in steps in which it judges a larger share of the images rightly; 1 means that
    it always learns."""


LATER = ("held_out",)
"""Settings that earlier versions lacked, and that are off by default."""


@dataclass(frozen=True)
class VisionConfig:
    """V, which turns frames into latents: by default the paper's convolutional VAE (appendix A.1)."""

    model: str = text("conv-vae")
    """Name of the vision model in the registry: conv-vae, patch-vae, vae-gan, vae-gan-small, or one of yours."""
    latent_size: int = number(32, low=1)
    """Dimensions of z, the latent of a frame."""
    epochs: float = number(6, above=0)
    """Passes over the frames; may be a fraction."""
    batch: int = number(128, low=1)
    """Frames per training step."""
    lr: float = number(4e-4, above=0)
    """Adam's highest learning rate, which decays along a cosine to a tenth of this value."""
    kl_tolerance: float = number(0.5, low=0)
    """Free nats per latent dimension: the KL divergence of a frame is not penalised below latent_size times this."""
    held_out: float = number(0.0, low=0, high=0.5)
    """Share of the episodes on which V is not trained but measured meanwhile; the weights with the lowest loss there
    are kept. With 0, a twentieth is held out and only measured at the end. memory.held_out holds out the same ones."""
    foreground_weight: float = number(0.0, low=0)
    """Extra weight of pixels that differ from the batch's mean frame: a pixel's squared error is multiplied by
    1 + foreground_weight * difference (0 to 1). 0 is the paper's loss; above 0 if small objects matter."""
    window: int = number(256, low=1)
    """Size of the shuffle buffer, in blocks of 64 frames: as many are loaded at a time and shuffled together."""
    gan: GANConfig = part(GANConfig)
