"""Toy evolutions: controllers of four numbers that approach a target, and agents in a scripted world."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch

from worldmodels.agent import Agent
from worldmodels.controller.inputs import PolicyInputs
from worldmodels.controller.layout import Layout
from worldmodels.core.progress import Progress
from worldmodels.data.encode import encode_shard
from worldmodels.data.episodes import Episode, EpisodeStore, Shard
from worldmodels.evolution.config import PhaseConfig
from worldmodels.evolution.fitness import Fitness
from worldmodels.evolution.loop import Phase
from worldmodels.memory.latents import Latents
from worldmodels.vision.base import Vision
from worlds import Scripted

SIZE, TARGET = 4, np.array([0.5, -0.5, 1.0, 0.0])
SETTINGS = PhaseConfig(
    generations=7, population=6, episodes=3, sigma=0.3, max_steps=4, max_steps_growth=2, patience=5, validate_every=2,
    validation_episodes=5,
)  # fmt: skip

Call = tuple[np.ndarray, list[int], int, int | None]
"""Controllers, seeds, steps and patience that fitness was asked for."""


class Toy:
    """Fitness by the distance to TARGET and a little luck of the episode; remembers every call.

    dies_at: the call that is interrupted; validations: what the first validations say, instead of that distance.
    """

    def __init__(self, dies_at: int | None = None, validations: Sequence[float] = ()) -> None:
        self.calls: list[Call] = []
        self._dies_at, self._validations = dies_at, list(validations)

    def __call__(
        self, controllers: np.ndarray, seeds: Sequence[int], steps: int, patience: int | None = None
    ) -> tuple[np.ndarray, int]:
        if len(self.calls) == self._dies_at:
            raise KeyboardInterrupt
        self.calls.append((controllers.copy(), list(seeds), steps, patience))
        if patience is None and self._validations:
            return np.full((len(controllers), len(seeds)), self._validations.pop(0)), 1
        luck = np.array([[seed % 1000 / 10_000 for seed in seeds]])
        return luck - ((controllers - TARGET) ** 2).sum(axis=1, keepdims=True), 10 * len(seeds) * len(controllers)

    @property
    def fitness_calls(self) -> list[Call]:
        """The calls for fitness, which alone have patience."""
        return [call for call in self.calls if call[3] is not None]

    @property
    def validation_calls(self) -> list[Call]:
        """The other calls."""
        return [call for call in self.calls if call[3] is None]


def toy_agent(task: Any = None, policy: Any = None) -> Agent:
    """What evolving needs of an agent."""
    inputs = PolicyInputs(("z",), SIZE // 2 - 1, 0)
    whole = {"controller": torch.zeros(SIZE), "task": task or Scripted(), "policy": policy, "info": {}}
    return cast(Agent, SimpleNamespace(**whole, inputs=inputs, layout=Layout(SIZE // 2 - 1, 2)))


def toy_phase(
    toy: Fitness,
    *,
    number: int = 0,
    strategy: str = "sep-cma",
    inputs: Callable[[], np.ndarray] | None = None,
    identity: str = "",
    seed: int = 1,
    **settings: Any,
) -> Phase:
    """A phase whose fitness and validation are ``toy``, with other settings than SETTINGS where they are given."""
    return Phase(
        name="toy",
        settings=replace(SETTINGS, **settings),
        number=number,
        seed=seed,
        strategy=strategy,
        components=32,
        fitness=toy,
        validate=toy,
        inputs=inputs,
        identity=identity,
    )


class Glance(Vision):
    """A V for the scripted world, whose pixels are all the same: it looks at one of them."""

    def __init__(self, latent_size: int = 4) -> None:
        super().__init__(latent_size)
        self.map = torch.nn.Linear(3, latent_size)

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mu = 2 * self.map(images[:, :, 0, 0])
        return mu, torch.full_like(mu, -2.0)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    objectives = held_out_loss = decode  # type: ignore[assignment]


def latents_of(agent: Agent, episodes: Sequence[Episode], folder: Path) -> Latents:
    """Episodes as the encode stage makes latents of them, by way of a store in ``folder``."""
    store = EpisodeStore(folder)
    store.write(0, episodes)
    shard = Shard(store.shard_path(0))
    with Progress(shard.num_frames, "encode", "frames") as bar:
        return encode_shard(agent.vision, agent.task, shard, bar)


def without_speed(directory: Path) -> list[str]:
    """metrics.csv without its one column that no two processes share."""
    lines = (directory / "metrics.csv").read_text().splitlines()
    speed = lines[0].split(",").index("steps_per_s")
    return [",".join(cell for i, cell in enumerate(line.split(",")) if i != speed) for line in lines]
