"""Settings of the report on dreams."""

from dataclasses import dataclass

from worldmodels.core.settings import number


@dataclass(frozen=True)
class DreamReportConfig:
    """How much the report on an agent's dreams measures."""

    episodes: int = number(24, low=1)
    """Real episodes that dreams are compared with."""
    horizon: int = number(200, low=1)
    """Longest prediction, in steps."""
    starts: int = number(8, low=1)
    """Moments of each episode from which a dream goes on."""
    controllers: int = number(40, low=1)
    """Controllers of all strengths whose scores in dreams and in the real world are compared."""
    controller_episodes: int = number(16, low=1)
    """Real episodes of each of them; four times as many dreams."""
    temperatures: tuple[float, ...] = number((0.1, 0.5, 1.0, 1.15, 1.3), above=0, nonempty=True)
    """Temperatures at each of which a controller is evolved in dreams."""
    generations: int = number(30, low=0)
    """Generations of each of those evolutions; 0 leaves them out."""
    games: int = number(100, low=1)
    """Real episodes and dreams on which their results are scored."""
    steps: int = number(0, low=0)
    """Longest episode and dream, in steps; 0 means the task's limit."""
