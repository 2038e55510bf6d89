"""The settings of a run: those of its components, and a few of its own. This module is fast to import."""

from dataclasses import dataclass, replace

from worldmodels.controller.config import ControllerConfig
from worldmodels.core.settings import number, part, text
from worldmodels.data.config import CollectConfig
from worldmodels.dream.config import DreamConfig
from worldmodels.evolution.config import EvolutionConfig
from worldmodels.memory.config import MemoryConfig
from worldmodels.vision.config import VisionConfig


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


def later_round(config: Config) -> Config:
    """The settings of every round after the first: a fraction of the episodes, of V's epochs and of M's steps."""
    collect, vision, memory = config.collect, config.vision, config.memory

    def share(count: int) -> int:
        return max(1, round(config.later_round_share * count)) if count else 0

    return replace(
        config,
        collect=replace(
            collect, episodes=share(collect.episodes), reference_episodes=share(collect.reference_episodes)
        ),
        vision=replace(vision, epochs=config.later_round_share * vision.epochs),
        memory=replace(memory, steps=share(memory.steps)),
    )
