"""Evolution where episodes have a goal: which of them were finished, what that is worth, and which are repeated.

In CarRacing a lap is finished when every tile was visited. A C that misses a single tile drives on until the time is
over, so that finishing more laps raises the mean more than driving them faster.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worldmodels.core.errors import UserError
from worldmodels.evolution.config import PhaseConfig
from worldmodels.evolution.fitness import FinishedFitness, Fitness
from worldmodels.tasks import Task


@dataclass(frozen=True)
class Outcome:
    """What N controllers did in E episodes.

    returns: (N, E) float64; steps: in total; finished: which episodes reached the goal, (N, E) bool, or None for tasks
    without one and for dreams.
    """

    returns: np.ndarray
    steps: int
    finished: np.ndarray | None = None

    def fitness(self, bonus: float) -> np.ndarray:
        """What the strategy is told of every controller, (N,): the mean of its returns, and of ``bonus`` per finish."""
        fitness: np.ndarray = self.returns.mean(axis=1)
        if bonus:
            assert self.finished is not None
            fitness = fitness + bonus * self.finished.mean(axis=1)
        return fitness

    def shares(self, name: str) -> dict[str, float]:
        """The share of finished episodes under this name, for the log; empty if it is unknown."""
        return {} if self.finished is None else {name: float(self.finished.mean())}

    def hardest(self, seeds: Sequence[int], count: int, kind: str) -> list[int]:
        """The seeds of the ``count`` hardest of the episodes; kind: as in the setting hard_episodes."""
        order = np.argsort(self.returns.mean(axis=0), kind="stable")
        if kind == "unfinished":
            assert self.finished is not None
            order = np.lexsort((self.returns.mean(axis=0), self.finished.mean(axis=0)))
        return [seeds[index] for index in order[:count].tolist()]


def tells_finished(fitness: Fitness, task: Task) -> bool:
    """Whether :func:`measured` knows which episodes were finished."""
    return bool(task.goal) and isinstance(fitness, FinishedFitness)


def measured(
    fitness: Fitness,
    task: Task,
    controllers: np.ndarray,
    seeds: Sequence[int],
    steps: int,
    patience: int | None = None,
) -> Outcome:
    """What controllers (N, P) did in the episodes with these seeds; the arguments are those of :class:`Fitness`."""
    if tells_finished(fitness, task):
        assert isinstance(fitness, FinishedFitness)
        return Outcome(*fitness.with_finished(controllers, seeds, steps, patience))
    return Outcome(*fitness(controllers, seeds, steps, patience))


def check_finishing(phases: Sequence[tuple[str, PhaseConfig]], task: Task) -> None:
    """Raise :class:`UserError` for a phase whose settings ask which episodes were finished where nobody can tell."""
    for name, phase in phases:
        asks = {"finish-bonus": phase.finish_bonus > 0, "hard-episodes": phase.hard_episodes == "unfinished"}
        usual = {"finish-bonus": "0", "hard-episodes": "lowest"}
        for option in (option for option, asked in asks.items() if asked):
            where = f"--evolution.phases.{name}.{option}"
            if phase.world == "dream":
                raise UserError(f"{where}: dreams do not tell which episodes are finished; set it to {usual[option]}")
            if not task.goal:
                raise UserError(f"{where}: the episodes of {task.name} have no goal; set it to {usual[option]}")
