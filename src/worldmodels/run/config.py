"""The settings of a run: those of its components, and a few of its own. This module is fast to import."""

from dataclasses import dataclass, replace
from typing import Any, Self

from worldmodels.controller.config import ControllerConfig
from worldmodels.core.settings import from_json, number, part, table, text
from worldmodels.data.config import CollectConfig
from worldmodels.dream.config import DreamConfig
from worldmodels.evolution.config import EvolutionConfig
from worldmodels.memory.config import MemoryConfig
from worldmodels.vision.config import VisionConfig

SHORT = {"phases": "evolution.sequence", "policy": "collect.policy"}
"""Short names of settings."""


@dataclass(frozen=True)
class EvaluateConfig:
    """The final evaluation of the agent."""

    episodes: int = number(100, low=1)
    """Number of fresh episodes, played on the task's reference backend."""
    num_envs: int = number(50, low=1)
    """Number of environments that are stepped together."""
    steps: int = number(0, low=0)
    """Longest episode in steps, for quick trials; 0 means the task's limit. With a lower limit, the result is not a
    score."""


@dataclass(frozen=True)
class Config:
    """Everything that a run's result depends on."""

    task: str = text("car-racing")
    """Name of the task, the world to learn."""
    env: dict[str, Any] = table()
    """Options of the environment, as JSON: those of gymnasium.make for the tasks gym:ID, action_repeat for car-racing;
    on the command line --env.KEY VALUE."""
    world: dict[str, Any] = table()
    """What was found out about the environment of a task gym:ID; no setting of its own."""
    preset: str = text("standard")
    """Name of the preset from which the other values come."""
    seed: int = number(1, low=0)
    """Seed from which all other seeds follow."""
    rounds: int = number(1, low=1, high=1000)
    """Number of passes through collect, V, M and C; later rounds collect with the agent of the previous round."""
    later_round_share: float = number(0.5, above=0)
    """Fraction of the first round's episodes, epochs of V and steps of M that each later round adds."""
    collect: CollectConfig = part(CollectConfig)
    vision: VisionConfig = part(VisionConfig)
    memory: MemoryConfig = part(MemoryConfig)
    controller: ControllerConfig = part(ControllerConfig)
    evolution: EvolutionConfig = part(EvolutionConfig)
    dream: DreamConfig = part(DreamConfig)
    evaluate: EvaluateConfig = part(EvaluateConfig)

    def __repr__(self) -> str:
        shown = {"task": self.task, "preset": self.preset, "seed": self.seed, "rounds": self.rounds}
        settings = ", ".join(f"{name}={value!r}" for name, value in shown.items())
        return f"{type(self).__name__}({settings}, phases={self.evolution.sequence!r}, ...)"

    def with_settings(self, **settings: Any) -> Self:
        """These settings with other values for some of them.

        settings: values by the names of the command line: ``config.with_settings(seed=2, **{"memory.steps": 100})``;
        sequences are tuples or lists. Raises :class:`UserError` for a name that does not exist, and for a value of the
        wrong type or out of bounds.
        """
        content: dict[str, Any] = {}
        for name, value in settings.items():
            *path, last = _fields(SHORT.get(name, name))
            place = content
            for field in path:
                place = place.setdefault(field, {})
            place[last] = list(value) if isinstance(value, tuple) else value
        return from_json(type(self), content, self)


def _fields(name: str) -> list[str]:
    """The fields of an option: "vision.latent-size" gives ["vision", "latent_size"]. Names of phases may contain -."""
    parts = name.split(".")
    return [
        part if index and parts[index - 1] == "phases" else part.replace("-", "_") for index, part in enumerate(parts)
    ]


def later_round(config: Config) -> Config:
    """The settings of every round after the first: a fraction of the episodes, V's epochs and M's steps; its phases."""
    collect, vision, memory, evolution = config.collect, config.vision, config.memory, config.evolution

    def share(count: int) -> int:
        return max(1, round(config.later_round_share * count)) if count else 0

    return replace(
        config,
        collect=replace(
            collect, episodes=share(collect.episodes), reference_episodes=share(collect.reference_episodes)
        ),
        vision=replace(vision, epochs=config.later_round_share * vision.epochs),
        memory=replace(memory, steps=share(memory.steps)),
        evolution=replace(
            evolution,
            sequence=evolution.later_sequence or evolution.sequence,
            starts=evolution.starts if evolution.carry == "none" else 1,
        ),
    )
