"""Evolving C: candidates drive the same new tracks in every generation, the distribution's mean is what counts."""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from gymnasium.vector import VectorEnv

from worldmodels import interrupt
from worldmodels.agent import Agent
from worldmodels.config import ControllerConfig
from worldmodels.controller.space import SearchSpace, component_space, whole_space
from worldmodels.controller.strategy import make_strategy
from worldmodels.errors import UserError
from worldmodels.progress import Progress
from worldmodels.rollouts import Rollouts, rollout
from worldmodels.seeds import episode_seeds
from worldmodels.storage.atomic import array, load_tensors, save_tensors
from worldmodels.storage.metrics import MetricsLog
from worldmodels.workers.kept import Kept

Returns = Callable[[np.ndarray, Sequence[int], int, int | None], tuple[np.ndarray, int]]
"""(controllers (N, P), seeds (E,), steps at most, patience) -> (returns (N, E) of everyone on every seed, steps)."""


@dataclass
class _Mean:
    """A mean of the distribution: after which generation, its controller (P,), its score in validation, and in the
    finals, NaN before it has met them."""

    generation: int
    controller: np.ndarray
    score: float
    final: float = math.nan


@dataclass
class _State:
    space: SearchSpace
    fitness: list[np.ndarray]
    means: list[_Mean]
    revisit: list[int]
    """Tracks on which the last generation did worst; the next one meets them again."""

    def best(self, config: ControllerConfig) -> tuple[_Mean, float]:
        """The best mean, and its score over all its episodes; once there were finals, the best of those."""
        final = [one for one in self.means if not math.isnan(one.final)]
        most, more = config.validation_episodes, config.final_episodes
        scores = [(most * one.score + more * one.final) / (most + more) for one in final]
        if not final:
            final, scores = self.means, [one.score for one in self.means]
        index = int(np.argmax(scores))
        return final[index], scores[index]


def real_returns(agent: Agent, backend: str) -> Returns:
    """Measure controllers in the real environment, in lockstep."""
    kept = Kept(agent.task)

    def measure(
        controllers: np.ndarray, seeds: Sequence[int], steps: int, patience: int | None
    ) -> tuple[np.ndarray, int]:
        everyone, everywhere = np.repeat(controllers, len(seeds), axis=0), list(seeds) * len(controllers)
        returns, done = np.zeros(len(everyone)), 0
        # Parts of one size, since environments are kept only for as many again.
        size = -(-len(everyone) // -(-len(everyone) // agent.task.at_once))
        for start in range(0, len(everyone), size):
            part = slice(start, start + size)
            ours = partial(play, everyone[part], everywhere[part], steps, patience)
            result = kept.retrying(len(everyone[part]), backend, ours)
            returns[part] = result.returns
            done += result.steps
        return returns.reshape(len(controllers), len(seeds)), done

    def play(
        controllers: np.ndarray, seeds: Sequence[int], steps: int, patience: int | None, env: VectorEnv
    ) -> Rollouts:
        policy = agent.policy(len(controllers), torch.from_numpy(controllers.astype(np.float32)))
        return rollout(env, policy, seeds, steps, patience)

    return measure


def evolve(
    agent: Agent,
    config: ControllerConfig,
    seed: int,
    directory: Path,
    measure: Returns | None = None,
    seen: Callable[[], np.ndarray] | None = None,
    validate: Returns | None = None,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Evolve controllers for the agent's V and M; return the best mean found, (P,), and its validation score.

    measure: gives candidates their fitness (None: in the real world); seen: gives a sample (n, F) of what C sees, for
    the components in which it is evolved; validate: gives the mean its score (None: as ``measure``). Continues from the
    checkpoint in ``directory``: recorded fitness is told again to the seeded strategy, which then stands exactly where
    it stood.
    """
    measure = measure or real_returns(agent, config.backend)
    validate = validate or measure
    limit, checkpoint = agent.task.max_steps, directory / "evolution.safetensors"
    state = _load(checkpoint, agent, config) if checkpoint.exists() else _fresh(agent, config, seen)
    space, start = state.space, len(state.fitness)
    strategy = make_strategy(config, space.size, seed)
    if start > config.generations:
        raise UserError(
            f"{checkpoint} has seen {start} generations; expected at least as many, got {config.generations}"
        )
    for fitness in state.fitness:
        strategy.tell(fitness)
    columns = ("mean", "best", "sd", "horizon", "steps_per_s", "sigma", "validation", "validation_sd")
    log = MetricsLog(directory, columns, start)
    validation_seeds = episode_seeds("validation", seed, config.validation_episodes)
    if start == 0 and space.start.any():
        # Nobody wants to go on from a C and come back with a worse one.
        scores, _ = validate(space.start[None], validation_seeds, limit, None)
        state.means = [_Mean(0, space.start, float(scores.mean()))]
    with Progress(config.generations, "controller", "generations", start) as bar, contextlib.closing(log):
        total_steps, began = 0, time.monotonic()
        for generation in range(start, config.generations):
            interrupt.check()
            candidates = space.controllers(strategy.ask())
            episodes = _episodes(config, generation)
            fresh = episode_seeds("fitness", seed, episodes - len(state.revisit), generation)
            tracks = state.revisit + fresh
            horizon = min(limit, config.horizon + config.horizon_growth * generation)
            returns, steps = measure(candidates, tracks, horizon, config.patience or None)
            fitness = returns.mean(axis=1)
            strategy.tell(fitness)
            state.fitness.append(fitness)
            # The rare track that everyone fails on comes back until somebody masters it.
            count = min(int(config.revisit * _episodes(config, generation + 1)), episodes - 1)
            hardest = np.argsort(returns.mean(axis=0), kind="stable")[:count]
            state.revisit = [tracks[index] for index in hardest.tolist()]
            total_steps += steps
            done = generation + 1
            numbers = {
                "mean": fitness.mean(),
                "best": fitness.max(),
                "sd": fitness.std(),
                "horizon": horizon,
                "steps_per_s": total_steps / (time.monotonic() - began),
                "sigma": strategy.sigma,
            }
            shown = {"fitness": float(fitness.mean()), "steps/s": total_steps / (time.monotonic() - began)}
            if done % config.validate_every == 0 or done == config.generations:
                mean = space.controllers(strategy.mean[None])
                scores, _ = validate(mean, validation_seeds, limit, None)
                numbers |= {"validation": scores.mean(), "validation_sd": scores.std()}
                state.means.append(_Mean(done, mean[0], float(scores.mean())))
                shown["validation"] = float(scores.mean())
            log.log(done, **{name: float(value) for name, value in numbers.items()})
            _save(checkpoint, state, config)
            bar.advance(1, **shown)
    _finals(state, config, lambda mean, seeds: validate(mean, seeds, limit, None)[0], seed, checkpoint)
    best, score = state.best(config)
    metrics = {
        "generations": float(len(state.fitness)),
        "validation": score,
        "best_generation": float(best.generation),
    }
    return torch.from_numpy(best.controller).float(), metrics


def _finals(
    state: _State,
    config: ControllerConfig,
    validate: Callable[[np.ndarray, Sequence[int]], np.ndarray],
    seed: int,
    checkpoint: Path,
) -> None:
    """Validate the best means once more, on more episodes: the best of several on a few owes much to luck."""
    if config.finalists < 2:
        return
    chosen = sorted(state.means, key=lambda one: -one.score)[: config.finalists]
    missing = [one for one in chosen if math.isnan(one.final)]
    seeds = episode_seeds("finals", seed, config.final_episodes)
    with Progress(len(chosen), "finals", "means", len(chosen) - len(missing)) as bar:
        for one in missing:
            interrupt.check()
            one.final = float(validate(one.controller[None], seeds).mean())
            _save(checkpoint, state, config)
            bar.advance(1, generation=one.generation, validation=one.final)


def _episodes(config: ControllerConfig, generation: int) -> int:
    return config.episodes + int(config.episodes_growth * generation)


def _fresh(agent: Agent, config: ControllerConfig, seen: Callable[[], np.ndarray] | None) -> _State:
    start, controls = array(agent.controller).astype(np.float64), agent.task.control_size
    if seen is None or config.components == 0:
        space = whole_space(start, controls)
    else:
        space = component_space(start, controls, seen(), config.components, agent.part("c"))
    return _State(space, [], [], [])


def _save(path: Path, state: _State, config: ControllerConfig) -> None:
    tensors = {
        "fitness": torch.from_numpy(np.array(state.fitness)),
        "means": torch.from_numpy(
            np.array([one.controller for one in state.means]).reshape(-1, len(state.space.start))
        ),
        "scores": torch.tensor([(one.generation, one.score, one.final) for one in state.means], dtype=torch.float64),
        "revisit": torch.tensor(state.revisit, dtype=torch.int64),
        "start": torch.from_numpy(state.space.start),
        "centre": torch.from_numpy(state.space.centre),
        "basis": torch.from_numpy(np.ascontiguousarray(state.space.basis)),
    }
    save_tensors(path, tensors, {"population": config.population})


def _load(path: Path, agent: Agent, config: ControllerConfig) -> _State:
    tensors, _ = load_tensors(path)
    size, controls = len(agent.controller), agent.task.control_size
    try:
        fitness, means = array(tensors["fitness"]), array(tensors["means"])
        scores = array(tensors["scores"]).reshape(-1, 3).tolist()
        revisit = [int(one) for one in tensors["revisit"].tolist()]
        start, centre, basis = (array(tensors[name]) for name in ("start", "centre", "basis"))
    except (KeyError, ValueError, TypeError):
        raise UserError(f"{path} is not a state of evolution; delete it and run the same command again") from None
    fits = start.shape == (size,) and means.shape == (len(scores), size) and centre.shape == (size // controls - 1,)
    fits = fits and basis.ndim == 2 and len(basis) == len(centre)
    if not fits or fitness.ndim != 2 or fitness.shape[1] != config.population:
        raise UserError(f"{path} belongs to another population or controller; delete it, or use another --run")
    known = [
        _Mean(int(generation), mean, score, final)
        for mean, (generation, score, final) in zip(means, scores, strict=True)
    ]
    return _State(SearchSpace(start, centre, basis, controls), list(fitness), known, revisit)
