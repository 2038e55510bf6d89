"""Settings of collecting."""

from dataclasses import dataclass

from worldmodels.core.settings import number, text


@dataclass(frozen=True)
class CollectConfig:
    """Episodes that V and M learn from: of the policy in the first round, of the last round's agent in later ones."""

    episodes: int = number(128, low=1)
    """Episodes on the backend."""
    reference_episodes: int = number(48, low=0)
    """Episodes on the task's reference backend as well, so that V sees how that one draws."""
    reference_steps: int = number(250, low=0)
    """Longest of those, in steps; 0 means the task's limit. Renderers differ most where episodes begin."""
    num_envs: int = number(32, low=1)
    """Environments that run together; also the episodes of one shard."""
    backend: str = text("")
    """The task's backend for most episodes; empty means its fastest."""
    steps: int = number(0, low=0)
    """Longest episode, in steps; 0 means the task's limit."""
    policy: str = text("exploration")
    """Who plays in the first round: exploration (what suits the world), perturbed (the same with noise on its actions),
    random, one of the world's rules with noise, rainbow (a Rainbow DQN that learns meanwhile; extra rl), or an agent
    with noise: a shipped one's name, or a path. Short: --policy."""
