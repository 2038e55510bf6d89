"""Settings of the report on dreams."""

from dataclasses import dataclass

from worldmodels.core.settings import number


@dataclass(frozen=True)
class DreamReportConfig:
    """The size of the report on an agent's dreams."""

    episodes: int = number(24, low=1)
    """Real episodes with which dreams are compared."""
    horizon: int = number(200, low=1)
    """How many steps ahead dreams are compared with real episodes."""
    starts: int = number(8, low=1)
    """Moments of each real episode at which a dream is started."""
    controllers: int = number(40, low=1)
    """Controllers, from random ones to the agent's own, whose scores in dreams and in the real world are compared."""
    controller_episodes: int = number(16, low=1)
    """Real episodes per controller; each also gets four times as many dreams."""
    temperatures: tuple[float, ...] = number((0.1, 0.5, 1.0, 1.15, 1.3), above=0, nonempty=True)
    """Temperatures of dreams; at each of them a controller is evolved in dreams."""
    generations: int = number(30, low=0)
    """Generations of each of these evolutions; 0 leaves them out."""
    games: int = number(100, low=1)
    """Real episodes, and as many dreams, on which each evolved controller is scored."""
    steps: int = number(0, low=0)
    """Longest episode and longest dream, in steps; 0 means the task's limit."""
