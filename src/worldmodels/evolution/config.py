"""Settings of evolution and of its phases, which are all of one class."""

from dataclasses import dataclass

from worldmodels.core.settings import choice, number, part, text


@dataclass(frozen=True)
class PhaseConfig:
    """One phase of an evolution: generations in one world, starting from the C of the previous phase or round."""

    world: str = choice("real", "real", "dream")
    """Where the fitness of candidates is computed: in the real world or in dreams. Validation is always in the real
    world."""
    generations: int = number(60, low=1)
    """Generations of the phase."""
    population: int = number(16, low=2)
    """Candidates per generation."""
    episodes: int = number(4, low=1)
    """Episodes per candidate in the first generation. Every generation uses new episodes, apart from the fraction
    hard_episode_fraction."""
    episodes_growth: float = number(0.0, low=0)
    """Episodes added per generation (may be a fraction): later candidates differ less and need more episodes to be
    ranked."""
    hard_episode_fraction: float = number(0.0, low=0, high=1)
    """Fraction of a generation's episodes that repeat the hardest ones of the previous generation; at least one episode
    is new."""
    hard_episodes: str = choice("lowest", "lowest", "unfinished")
    """Which episodes are the hardest: lowest (those with the lowest mean return of all candidates) or unfinished (those
    that the fewest candidates finished, and among equal ones those with the lowest returns; in the real world only, for
    tasks whose episodes have a goal, such as CarRacing's laps)."""
    finish_bonus: float = number(0.0, low=0)
    """Added to the fitness for every episode that a candidate finishes, so that finishing is worth more than speed; for
    the same phases and tasks as unfinished. What is logged and validated are returns without it."""
    max_steps: int = number(0, low=0)
    """Longest fitness episode of the first generation, in steps; 0 means the task's limit."""
    max_steps_growth: int = number(0, low=0)
    """Steps by which max_steps grows per generation, up to the task's limit."""
    patience: int = number(0, low=0)
    """A fitness episode ends after this many steps without a positive reward; 0 means never. In dreams, where rewards
    are guesses, it is looked at every so many steps whether those since then add up to more than 0."""
    sigma: float = number(0.1, above=0)
    """Initial step size; for ga, the standard deviation of mutations."""
    warm_start_sigma: float = number(0.0, low=0)
    """Initial step size if the phase starts from an evolved C; 0 means the value of sigma. The weights of an evolved C
    are large, so that small steps change little."""
    sigma_decay: float = number(0.98, above=0, high=1)
    """Factor of the step size after every generation, on top of the strategy's own adaptation. 1 means no decay; with
    openai-es and ga it stops at a step size of 0.01, with pepg at 0.02."""
    sigma_hold: int = number(14, low=0)
    """Generations before this decay begins."""
    lr: float = number(0.01, above=0)
    """pepg and openai-es only: Adam's learning rate for the mean."""
    weight_decay: float = number(0.005, low=0)
    """pepg: a candidate's rank (-0.5 to 0.5) is reduced by this times the mean square of its coordinates in the search
    space; openai-es: this times the mean is subtracted from the gradient; other strategies ignore it. Both lead back to
    the C from which the phase starts."""
    elite_fraction: float = number(0.2, above=0, high=1)
    """ga only: fraction of a generation, but at least one candidate, that has children in the next one."""
    crossover: float = number(0.0, low=0, high=1)
    """ga only: fraction of children that take each coordinate from one of two parents, at random; the others have one
    parent."""
    subspace: str = choice("recorded", "recorded", "visited")
    """Inputs whose principal components span the search space: those along recorded episodes, or those that C itself
    visits."""
    validate_every: int = number(10, low=1)
    """Generations between validations of the distribution's mean."""
    validation_episodes: int = number(32, low=1)
    """Episodes of a validation, the same ones each time and never used for fitness."""
    reevaluate_top_k: int = number(1, low=1)
    """Number of best means that are evaluated again at the end, on other episodes; the one with the best score over all
    its episodes is chosen. With 1, the one with the best validation score is chosen."""
    reevaluation_episodes: int = number(200, low=1)
    """Episodes of this reevaluation."""


def _phases() -> dict[str, PhaseConfig]:
    return {"real": PhaseConfig()}


@dataclass(frozen=True)
class EvolutionConfig:
    """How C is evolved: phases, one after the other."""

    strategy: str = text("sep-cma")
    """Evolution strategy: cma (CMA-ES with the full covariance matrix), sep-cma (CMA-ES with a diagonal one), pepg
    (parameter-exploring policy gradients), openai-es (OpenAI's evolution strategy) or ga (a genetic algorithm)."""
    components: int = number(32, low=0)
    """Number of principal components of C's inputs that span the search space, with the symmetry mirror for each
    control; 0 means one dimension for every weight of C."""
    symmetry: str = choice("none", "none", "mirror")
    """none, or mirror for worlds in which left and right are alike, such as CarRacing: the weights of each control are
    searched along components of C's inputs that a mirror treats like that control. Steering, whose sign changes there,
    gets those that change theirs, gas and brake those that stay. A C with a hidden layer is searched without it."""
    backend: str = text("")
    """The task's backend for fitness and validation in the real world; empty means its fastest."""
    carry: str = choice("weights", "weights", "ridge", "none")
    """How a later round takes over the C of the round before: weights (as they are), ridge (fitted by ridge regression,
    so that on the new round's episodes its controls with the new V and M are those with the old ones) or none (every
    round evolves a new C; the one before only plays the episodes)."""
    sequence: tuple[str, ...] = text(("real",))
    """Names of the phases to run, in order. Short form: --phases."""
    starts: int = number(1, low=1)
    """Evolutions with different random numbers wherever C begins anew, in the first round or with carry none in every
    one: all phases but the last are run this many times, and the last one goes on from the C with the best validation.
    Of a single phase, the best C is the result."""
    good_start: float | None = number(None)
    """Validation from which a start is good enough, so that no further ones are made; none means that all are."""
    later_sequence: tuple[str, ...] = text(())
    """Names of the phases to run in later rounds, which start from an evolved C; none means those of the first."""
    phases: dict[str, PhaseConfig] = part(_phases)
    """The phases by name; those that are not in the sequence serve ablations, or can be chosen with --phases."""
