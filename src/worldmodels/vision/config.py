"""Settings of V."""

from dataclasses import dataclass

from worldmodels.core.settings import number, text


@dataclass(frozen=True)
class VisionConfig:
    """V, which turns frames into latents: by default the paper's convolutional VAE (appendix A.1)."""

    model: str = text("conv-vae")
    """Name of the vision model in the registry."""
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
    foreground_weight: float = number(0.0, low=0)
    """Extra weight of pixels that differ from the batch's mean frame: a pixel's squared error is multiplied by
    1 + foreground_weight * difference (0 to 1). 0 is the paper's loss; above 0 if small objects matter."""
    window: int = number(256, low=1)
    """Size of the shuffle buffer, in blocks of 64 frames: as many are loaded at a time and shuffled together."""
