"""Settings of M."""

from dataclasses import dataclass

from worldmodels.core.settings import number

LATER = ("clock", "dropout", "hit_weight", "held_out")
"""Settings that earlier versions lacked, and that are off by default."""


@dataclass(frozen=True)
class MemoryConfig:
    """M, the paper's MDN-RNN (appendix A.2), with the reward, end and action mask heads that the task asks for."""

    hidden_size: int = number(256, low=1)
    """LSTM units."""
    mixtures: int = number(5, low=1)
    """Gaussians per latent dimension."""
    steps: int = number(1000, low=1)
    """Training steps."""
    batch: int = number(32, low=1)
    """Sequences per training step."""
    length: int = number(200, low=1)
    """Transitions per sequence, limited to those of the longest episode."""
    burn_in: int = number(0, low=0)
    """Transitions before each sequence on which M is run without gradients, so that a sequence from the middle of an
    episode does not start with a zero state."""
    clock: int | None = number(None, low=0)
    """Steps that count as 1 on M's clock, one more input, which tells how old the episode is. 0 means no clock; by
    default it is the task's (Doom: 2100)."""
    dropout: float = number(0.0, low=0, high=0.9)
    """Share of z and of h that M does not see in training: one mask per sequence, the same for all its steps. Dreams
    have a setting of their own, dream.dropout."""
    held_out: float = number(0.0, low=0, high=0.5)
    """Share of the episodes on which M is not trained but measured meanwhile; the weights with the lowest loss there
    are kept. With 0, nothing is held out."""
    lr: float = number(1e-3, above=0)
    """Adam's highest learning rate, which decays along a cosine to a hundredth of this value."""
    clip: float = number(1.0, above=0)
    """Every element of a gradient is clipped to plus or minus this value."""
    end_weight: float = number(10.0, above=0)
    """Weight of the steps on which an episode ends in the loss of the end head (other steps: 1), because ends are
    rare."""
    hit_weight: float = number(0.0, low=0)
    """Weight of the steps in which the health falls in the loss of the hit head (other steps: 1), because hits are
    rare. 0 means that M has no such head; it needs a world that tells the health, such as Doom."""
    dream_models: int = number(0, low=0, high=100)
    """Number of additional Ms that dream, each trained separately on the same latents. C is evolved in their dreams,
    while the agent's own M only tracks its hidden state, as in the real world. With 0, the agent's own M dreams, and C
    sees the entire state of the dream."""
