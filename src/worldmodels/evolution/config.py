"""Settings of evolution: a list of phases, which all have the same settings."""

from dataclasses import dataclass

from worldmodels.core.settings import choice, number, part, text


@dataclass(frozen=True)
class PhaseConfig:
    """One phase of an evolution: generations in one world, from the C of the phase before (or of the last round)."""

    world: str = choice("real", "real", "dream")
    """Where candidates get their fitness: in the real world or in dreams. Validation is always in the real world."""
    generations: int = number(60, low=1)
    """Generations of the phase."""
    population: int = number(16, low=2)
    """Candidates per generation."""
    episodes: int = number(4, low=1)
    """Episodes that every candidate of the first generation plays; new ones in each generation."""
    episodes_growth: float = number(0.0, low=0)
    """Episodes added per generation: the closer candidates come to each other, the finer they must be told apart."""
    hard_episode_fraction: float = number(0.0, low=0, high=1)
    """Share of a generation's episodes (never all) that are those on which the generation before did worst."""
    max_steps: int = number(0, low=0)
    """Longest fitness episode of the first generation, in steps; 0 means the task's limit."""
    max_steps_growth: int = number(0, low=0)
    """Steps by which it grows per generation, up to the task's limit."""
    patience: int = number(0, low=0)
    """A fitness episode ends after this many steps without a positive reward; 0 means never. In the real world only."""
    sigma: float = number(0.1, above=0)
    """Initial step size."""
    warm_start_sigma: float = number(0.0, low=0)
    """Initial step size where the phase starts from an evolved C; 0 means as from zero. Beside weights that have grown,
    small steps change nothing."""
    sigma_decay: float = number(0.98, above=0, high=1)
    """Factor of the step size after every generation, on top of the strategy's own adaptation."""
    sigma_hold: int = number(14, low=0)
    """Generations before that decay begins."""
    lr: float = number(0.01, above=0)
    """pepg: Adam's learning rate of the mean."""
    weight_decay: float = number(0.005, low=0)
    """pepg: what a candidate loses of its rank (-0.5 to 0.5) per mean square of its point in the search space."""
    subspace: str = choice("recorded", "recorded", "visited")
    """Whose inputs the principal components are of: those along recorded episodes, or those that C itself visits."""
    validate_every: int = number(10, low=1)
    """Generations between validations of the distribution's mean."""
    validation_episodes: int = number(32, low=1)
    """Episodes of a validation, the same ones each time and never used for fitness."""
    reevaluate_top_k: int = number(1, low=1)
    """How many of the best means are played once more in the end, on other episodes; the best over all episodes counts.
    1: the best validation counts."""
    reevaluation_episodes: int = number(200, low=1)
    """Episodes of that reevaluation."""


def _phases() -> dict[str, PhaseConfig]:
    return {"real": PhaseConfig()}


@dataclass(frozen=True)
class EvolutionConfig:
    """How C is evolved: phases, one after the other."""

    strategy: str = text("sep-cma")
    """What evolves it: cma (the full covariance), sep-cma (a diagonal one) or pepg (parameter-exploring policy
    gradients)."""
    components: int = number(32, low=0)
    """Principal components of what C sees in which it is evolved; 0 means every one of its weights by itself."""
    backend: str = text("")
    """The task's backend for fitness and validation in the real world; empty means its fastest."""
    sequence: tuple[str, ...] = text(("real",))
    """Names of the phases that are done, in order. Short: --phases."""
    phases: dict[str, PhaseConfig] = part(_phases)
    """The phases by name; those that the sequence leaves out are there for ablations and for you."""
