"""Settings of V."""

from dataclasses import dataclass

from worldmodels.core.settings import number, text


@dataclass(frozen=True)
class VisionConfig:
    """V, which turns frames into latents: by default the paper's convolutional VAE (appendix A.1)."""

    model: str = text("conv-vae")
    """Which V: the name under which it is registered."""
    latent_size: int = number(32, low=1)
    """Numbers in z, the latent of a frame."""
    epochs: float = number(6, above=0)
    """Passes over the frames; a part of one is allowed."""
    batch: int = number(128, low=1)
    """Frames per training step."""
    lr: float = number(4e-4, above=0)
    """Adam's highest learning rate. It falls to a tenth of it along a cosine."""
    kl_tolerance: float = number(0.5, low=0)
    """The KL divergence costs nothing below this many nats per latent dimension."""
    foreground_weight: float = number(0.0, low=0)
    """How much more the error of a pixel counts where a frame differs from the usual one: 1 + foreground_weight times
    the difference from the batch's mean frame (0 to 1). Above 0 for worlds in which small things matter."""
    window: int = number(256, low=1)
    """Blocks of 64 frames that are in memory at a time and shuffled together."""
