"""Settings of the collect stage."""

from dataclasses import dataclass

from worldmodels.core.settings import choice, number, text


@dataclass(frozen=True)
class CollectConfig:
    """The episodes that V and M learn from: the policy plays those of round 1, the last round's agent later ones."""

    episodes: int = number(128, low=1)
    """Episodes that are played on the backend."""
    reference_episodes: int = number(48, low=0)
    """Further episodes on the task's reference backend, so that V learns its renderer as well."""
    reference_steps: int = number(250, low=0)
    """Longest of these, in steps; 0 means the task's limit. Renderers differ most at the beginning of an episode."""
    num_envs: int = number(32, low=1)
    """Environments that run together; also the number of episodes in a shard."""
    backend: str = text("")
    """The backend of the other episodes; empty means the task's fastest."""
    steps: int = number(0, low=0)
    """Longest episode, in steps; 0 means the task's limit."""
    policy: str = text("exploration")
    """The policy of round 1: exploration (the task's own exploration policy), perturbed (the same with noise on its
    actions), random, one of the task's rules with noise, rainbow (a Rainbow DQN that learns while it plays; extra rl),
    an agent with noise (the name of a shipped one, or a path), or several of these that take turns, shard by shard,
    with a plus between them (exploration+take-cover; at most one agent). Short: --policy."""
    later_noise: float = number(1.0, low=0, high=1)
    """Strength of the noise with which an agent plays, in later rounds or as the policy of round 1; 1 is that of
    perturbed, and lower values are for worlds with continuous actions only."""
    later_noise_free: float = number(0.0, low=0, high=1)
    """Fraction of an agent's episodes that it plays without noise, evenly spread over every shard."""
    missing: tuple[str, ...] = choice((), "rewards", "ends")
    """What the episodes do not hold, as some that were imported: M then has no head for it, even if the task asks for
    one."""
