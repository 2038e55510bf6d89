"""The step size of strategies that do not adapt it: held for some generations, then multiplied by a factor."""

from worldmodels.controller.strategies import StrategySettings

_LIMIT = 0.01
"""Step size at which the decay stops."""


def step_size(settings: StrategySettings, generation: int) -> float:
    """The step size after ``generation`` generations: ``sigma_decay`` is applied after all but ``sigma_hold`` of them.

    The decay stops at a step size of 0.01; one that is smaller from the beginning does not decay.
    """
    decayed = settings.sigma * settings.sigma_decay ** max(0, generation - settings.sigma_hold)
    return max(decayed, min(settings.sigma, _LIMIT))
