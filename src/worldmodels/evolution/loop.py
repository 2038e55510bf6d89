"""One phase of evolution: all candidates of a generation play the same episodes, and the mean is validated."""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from worldmodels.agent import Agent
from worldmodels.controller.strategies import StrategySettings, make_strategy
from worldmodels.core import interrupt
from worldmodels.core.errors import UserError
from worldmodels.core.files import array, load_tensors, save_tensors
from worldmodels.core.metrics import MetricsLog
from worldmodels.core.progress import Progress
from worldmodels.core.seeds import Stream, episode_seeds
from worldmodels.evolution.config import PhaseConfig
from worldmodels.evolution.finishing import measured, tells_finished
from worldmodels.evolution.fitness import Fitness
from worldmodels.evolution.subspace import (
    SearchSpace,
    component_space,
    mirror_space,
    whole_space,
    with_random_features,
)
from worldmodels.tasks import Task

_COLUMNS = ("mean", "best", "sd", "max_steps", "steps_per_s", "sigma", "validation", "validation_sd")
_FINISHED, _VALIDATION_FINISHED = "finished", "validation_finished"
"""Further columns, of tasks with a goal: shares of episodes that were finished."""


@dataclass(frozen=True)
class Phase:
    """Everything that a phase needs except the agent, from whose C it starts.

    name: for progress reports; number: the phase's index from 0, from which its random numbers follow; strategy: name
    of the strategy; components: principal components that span the search space, 0 for one dimension per weight;
    fitness, validate: measure the candidates and the distribution's mean; inputs: returns a sample (n, F) of C's
    inputs, for the components; mirror: returns what inputs (n, F) become in a mirror, where the search space shall have
    that symmetry; identity: a text for everything that the result depends on, because a checkpoint with
    another identity is refused; start: which of several evolutions this is, from 0: each has random numbers and fitness
    episodes of its own, and all have the same episodes for validation.
    """

    name: str
    settings: PhaseConfig
    number: int
    seed: int
    strategy: str
    components: int
    fitness: Fitness
    validate: Fitness
    inputs: Callable[[], np.ndarray] | None = None
    identity: str = ""
    start: int = 0
    mirror: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def key(self) -> tuple[int, ...]:
        """What distinguishes this phase's random numbers from those of other phases and starts."""
        return (self.number, self.start) if self.start else (self.number,)

    def seeds(self, purpose: str, count: int, generation: int = 0) -> list[int]:
        """Seeds of episodes of this phase."""
        key = self.key if purpose == "fitness" else (self.number,)
        return episode_seeds(purpose, self.seed, count, generation, *key)

    def episodes(self, generation: int) -> int:
        """Number of episodes that every candidate of a generation plays."""
        return self.settings.episodes + int(self.settings.episodes_growth * generation)


@dataclass
class _Mean:
    """A mean of the distribution that was validated.

    generation: generations before it; controller: its parameters (P,); score: its mean return in validation;
    reevaluated: its mean return in the reevaluation, NaN if there was none.
    """

    generation: int
    controller: np.ndarray
    score: float
    reevaluated: float = math.nan


@dataclass
class _State:
    space: SearchSpace
    fitness: list[np.ndarray]
    means: list[_Mean]
    hard: list[int]
    """Seeds of the hardest episodes of the last generation, which the next one repeats."""

    def best(self, settings: PhaseConfig) -> tuple[_Mean, float]:
        """The best mean and its score over all its episodes; if some were reevaluated, the best of those."""
        means = [mean for mean in self.means if not math.isnan(mean.reevaluated)]
        first, second = settings.validation_episodes, settings.reevaluation_episodes
        scores = [(first * mean.score + second * mean.reevaluated) / (first + second) for mean in means]
        if not means:
            means, scores = self.means, [mean.score for mean in self.means]
        index = int(np.argmax([_worst_if_not_finite(score) for score in scores]))
        return means[index], scores[index]


def evolve(agent: Agent, phase: Phase, directory: Path) -> tuple[torch.Tensor, dict[str, float]]:
    """Evolve a C for the agent's V and M; returns the best mean (P,) float32, and the phase's metrics.

    Starts from the agent's C, which is validated too if it was evolved before, and returned if no mean scores better.
    Continues from the checkpoint in ``directory``: the recorded fitness is told again to the seeded strategy, which
    brings it to the same state. A checkpoint that started from another C is not used. Raises :class:`UserError` for a
    checkpoint of another experiment, or of more generations than the settings ask for, and for returns that are not
    finite, which are never saved.
    """
    settings, limit, checkpoint = phase.settings, agent.task.max_steps, directory / "evolution.safetensors"
    state = _load(checkpoint, agent, phase) if checkpoint.exists() else None
    state = state or _fresh(agent, phase)
    space, start = state.space, len(state.fitness)
    warm = agent.layout.acts(space.start)
    strategy = make_strategy(phase.strategy, _strategy_settings(phase, space.size, warm))
    if start > settings.generations:
        raise UserError(
            f"{checkpoint} holds {start} generations; expected a setting of at least {start}, "
            f"got {settings.generations}"
        )
    for fitness in state.fitness:
        strategy.tell(fitness)
    log = MetricsLog(directory, _columns(phase, agent.task), start)
    validation_seeds = phase.seeds("validation", settings.validation_episodes)
    if start == 0 and warm:
        scores, _ = phase.validate(space.start[None], validation_seeds, limit)
        _check_returns(scores, f"{phase.name}: validation before the first generation")
        state.means = [_Mean(0, space.start, float(scores.mean()))]
    with Progress(settings.generations, phase.name, "generations", start) as bar, contextlib.closing(log):
        total_steps, start_time = 0, time.monotonic()
        for generation in range(start, settings.generations):
            interrupt.check()
            candidates = space.controllers(strategy.ask())
            new = phase.seeds("fitness", phase.episodes(generation) - len(state.hard), generation)
            episodes = state.hard + new
            longest = min(limit, (settings.max_steps or limit) + settings.max_steps_growth * generation)
            outcome = measured(phase.fitness, agent.task, candidates, episodes, longest, settings.patience or None)
            _check_returns(outcome.returns, f"{phase.name}: generation {generation + 1}")
            fitness = outcome.fitness(settings.finish_bonus)
            strategy.tell(fitness)
            state.fitness.append(fitness)
            state.hard = outcome.hardest(
                episodes, _hard_count(phase, len(episodes), generation), settings.hard_episodes
            )
            total_steps += outcome.steps
            rate = total_steps / (time.monotonic() - start_time)
            done = generation + 1
            means = outcome.fitness(bonus=0)
            numbers = {
                "mean": means.mean(),
                "best": means.max(),
                "sd": means.std(),
                "max_steps": longest,
                "steps_per_s": rate,
                "sigma": strategy.sigma,
                **outcome.shares(_FINISHED),
            }
            shown = {"fitness": float(means.mean()), "steps/s": rate, **outcome.shares("finished")}
            if done % settings.validate_every == 0 or done == settings.generations:
                mean = space.controllers(strategy.mean[None])
                validated = measured(phase.validate, agent.task, mean, validation_seeds, limit)
                scores = validated.returns
                _check_returns(scores, f"{phase.name}: validation after generation {done}")
                numbers |= {"validation": scores.mean(), "validation_sd": scores.std()}
                numbers |= validated.shares(_VALIDATION_FINISHED)
                state.means.append(_Mean(done, mean[0], float(scores.mean())))
                shown["validation"] = float(scores.mean())
            log.log(done, **{name: float(value) for name, value in numbers.items()})
            _save(checkpoint, state, phase)
            bar.advance(1, **shown)
    _reevaluate(state, phase, partial(_save, checkpoint, state, phase), limit)
    best, score = state.best(settings)
    metrics = {
        "generations": float(len(state.fitness)),
        "validation": score,
        "best_generation": float(best.generation),
    }
    return torch.from_numpy(best.controller).float(), metrics


def _check_returns(returns: np.ndarray, where: str) -> None:
    """Raise :class:`UserError` for returns (N, E) that are not finite: no controller could be chosen by them."""
    wrong = int((~np.isfinite(returns)).sum())
    if wrong:
        raise UserError(
            f"{where} has {wrong:,} of {returns.size:,} returns that are NaN or infinite, and is not saved: look for "
            "rewards that are not finite in the world, or train M again with a lower --memory.lr"
        )


def _worst_if_not_finite(score: float) -> float:
    return score if math.isfinite(score) else -math.inf


def _strategy_settings(phase: Phase, size: int, warm: bool) -> StrategySettings:
    settings = phase.settings
    return StrategySettings(
        size=size,
        population=settings.population,
        sigma=settings.warm_start_sigma if warm and settings.warm_start_sigma else settings.sigma,
        seed=phase.seed,
        key=phase.key,
        sigma_decay=settings.sigma_decay,
        sigma_hold=settings.sigma_hold,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        elite_fraction=settings.elite_fraction,
        crossover=settings.crossover,
    )


def _columns(phase: Phase, task: Task) -> tuple[str, ...]:
    """The columns of the phase's metrics."""
    kinds = {_FINISHED: phase.fitness, _VALIDATION_FINISHED: phase.validate}
    return *_COLUMNS, *(name for name, fitness in kinds.items() if tells_finished(fitness, task))


def _hard_count(phase: Phase, played: int, generation: int) -> int:
    """The number of the ``played`` episodes of a generation that the next one repeats."""
    return min(int(phase.settings.hard_episode_fraction * phase.episodes(generation + 1)), played - 1)


def _reevaluate(state: _State, phase: Phase, save: Callable[[], None], limit: int) -> None:
    """Evaluate the best means again on other episodes, since the best of several validations owes much to luck."""
    if phase.settings.reevaluate_top_k < 2:
        return
    chosen = sorted(state.means, key=lambda mean: -_worst_if_not_finite(mean.score))[: phase.settings.reevaluate_top_k]
    missing = [mean for mean in chosen if math.isnan(mean.reevaluated)]
    seeds = phase.seeds("reevaluation", phase.settings.reevaluation_episodes)
    with Progress(len(chosen), "reevaluate", "means", len(chosen) - len(missing)) as bar:
        for mean in missing:
            interrupt.check()
            scores, _ = phase.validate(mean.controller[None], seeds, limit)
            _check_returns(scores, f"{phase.name}: reevaluation of the mean after generation {mean.generation}")
            mean.reevaluated = float(scores.mean())
            save()
            # Also the best so far: the last line that is shown would otherwise be that of whichever mean came last.
            best, score = state.best(phase.settings)
            now = {"generation": mean.generation, "reevaluated": mean.reevaluated}
            bar.advance(1, **now, best_generation=best.generation, score=score)


def _fresh(agent: Agent, phase: Phase) -> _State:
    start, layout = array(agent.controller).astype(np.float64), agent.layout
    new_features = layout.hidden > 0 and not layout.acts(start)
    seen = phase.inputs() if phase.inputs is not None and (phase.components or new_features) else None
    if seen is None or phase.components == 0:
        space = whole_space(start, layout.controls, layout.hidden)
    elif phase.mirror is not None and agent.task.mirror is not None:
        signs, unbounded = agent.task.mirror.controls, agent.inputs.part("c")
        space = mirror_space(start, signs, seen, phase.mirror(seen), phase.components, unbounded)
    else:
        unbounded = agent.inputs.part("c")
        space = component_space(start, layout.controls, seen, phase.components, unbounded, layout.hidden)
    if new_features:
        stream = np.random.default_rng([phase.seed, Stream.HIDDEN_LAYER, *phase.key])
        space = with_random_features(space, seen, stream)
    return _State(space, [], [], [])


def _save(path: Path, state: _State, phase: Phase) -> None:
    means = np.array([mean.controller for mean in state.means]).reshape(-1, len(state.space.start))
    scores = [(mean.generation, mean.score, mean.reevaluated) for mean in state.means]
    tensors = {
        "fitness": torch.from_numpy(np.array(state.fitness)),
        "means": torch.from_numpy(means),
        "scores": torch.tensor(scores, dtype=torch.float64),
        "hard": torch.tensor(state.hard, dtype=torch.int64),
        "start": torch.from_numpy(state.space.start),
        "centre": torch.from_numpy(state.space.centre),
        "basis": torch.from_numpy(np.ascontiguousarray(state.space.basis)),
    }
    save_tensors(path, tensors, {"population": phase.settings.population, "identity": phase.identity})


def _load(path: Path, agent: Agent, phase: Phase) -> _State | None:
    """The state in a checkpoint; None if it started from another C. Another experiment's is a :class:`UserError`."""
    tensors, meta = load_tensors(path)
    size, layout = len(agent.controller), agent.layout
    try:
        fitness, means = array(tensors["fitness"]), array(tensors["means"])
        scores = array(tensors["scores"]).reshape(-1, 3).tolist()
        hard = [int(seed) for seed in tensors["hard"].tolist()]
        start, centre, basis = (array(tensors[name]) for name in ("start", "centre", "basis"))
    except (KeyError, ValueError, TypeError):
        raise UserError(f"{path} is not a checkpoint of evolution; delete it and run the same command again") from None
    fits = start.shape == (size,) and means.shape == (len(scores), size) and centre.shape == (layout.inputs,)
    fits = fits and basis.shape[2:] in ((), (layout.controls,)) and len(basis) == len(centre)
    fits = fits and basis.ndim > 1 and meta.get("identity") == phase.identity
    if not fits or fitness.ndim != 2 or fitness.shape[1] != phase.settings.population:
        raise UserError(f"{path} belongs to another population or controller; delete it, or use another --run")
    if not all(np.isfinite(values).all() for values in (fitness, means, start, centre, basis)):
        raise UserError(f"{path} holds numbers that are not finite; delete it and run the same command again")
    own = array(agent.controller).astype(np.float64)
    # The hidden units of a C that does nothing yet are made here, and are in the checkpoint alone.
    if not np.array_equal(start, own) and (layout.hidden == 0 or layout.acts(start) or layout.acts(own)):
        return None
    validated = [
        _Mean(int(generation), mean, score, reevaluated)
        for mean, (generation, score, reevaluated) in zip(means, scores, strict=True)
    ]
    return _State(SearchSpace(start, centre, basis, layout.controls, layout.hidden), list(fitness), validated, hard)
