"""Settings of M."""

from dataclasses import dataclass

from worldmodels.core.settings import number


@dataclass(frozen=True)
class MemoryConfig:
    """M, the paper's MDN-RNN (appendix A.2), with the reward and end heads that the task asks for."""

    hidden_size: int = number(256, low=1)
    """LSTM units."""
    mixtures: int = number(5, low=1)
    """Gaussians per latent dimension."""
    steps: int = number(1000, low=1)
    """Training steps."""
    batch: int = number(32, low=1)
    """Sequences per training step."""
    length: int = number(200, low=1)
    """Transitions per sequence; never more than the longest episode has."""
    burn_in: int = number(0, low=0)
    """Transitions before each sequence through which M is run without learning, so that it does not begin with an empty
    memory in the middle of an episode."""
    lr: float = number(1e-3, above=0)
    """Adam's highest learning rate. It falls to a hundredth of it along a cosine."""
    clip: float = number(1.0, above=0)
    """Every element of a gradient is clipped to plus or minus this value."""
    end_weight: float = number(10.0, above=0)
    """How many times a step on which the episode ends counts in the loss of the end head, because ends are rare."""
    dream_models: int = number(0, low=0)
    """Further Ms, each trained by itself on the same latents. C is evolved in their dreams, while the agent's own M
    only follows, as it does in the real world. With 0 the agent's own M dreams, and C sees all that the dream is made
    of."""
