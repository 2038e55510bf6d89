"""Settings of every stage as frozen dataclasses, and the presets as values of them. Imports nothing heavy."""

import dataclasses
import difflib
from dataclasses import dataclass, field
from typing import Any

from worldmodels.errors import UserError


@dataclass(frozen=True)
class CollectConfig:
    """Episodes of the exploration policy (first round) or of the last round's agent."""

    episodes: int = 128
    """Episodes on the fast backend."""
    reference_episodes: int = 12
    """Episodes on the reference backend, so that V sees its rendering too."""
    lockstep: int = 32
    """Environments that run together; also the episodes of one flush."""
    backend: str = "envpool"
    """Backend of the first number of episodes."""
    steps: int = 0
    """Longest episode; 0 means the task's limit."""


@dataclass(frozen=True)
class VisionConfig:
    """V: the paper's convolutional VAE (appendix A.1)."""

    latent_size: int = 32
    """Size of z."""
    epochs: float = 6
    """Passes over the frames."""
    batch: int = 128
    """Frames per step."""
    lr: float = 4e-4
    """Adam's highest learning rate; it falls to a tenth along a cosine."""
    kl_tolerance: float = 0.5
    """KL below this many nats per latent dimension is not punished."""
    window: int = 256
    """Blocks of 64 frames in memory at a time, among which batches are shuffled."""


@dataclass(frozen=True)
class MemoryConfig:
    """M: the paper's MDN-RNN (appendix A.2), with the task's reward and end heads."""

    hidden_size: int = 256
    """LSTM units."""
    mixtures: int = 5
    """Gaussians per latent dimension."""
    steps: int = 1000
    """Training steps."""
    batch: int = 32
    """Sequences per step."""
    length: int = 200
    """Transitions per sequence."""
    lr: float = 1e-3
    """Adam's highest learning rate; it falls to a hundredth along a cosine."""
    clip: float = 1.0
    """Gradients are clipped to this value, element by element."""
    end_weight: float = 10.0
    """How many times an end counts in the loss of the end head."""


@dataclass(frozen=True)
class ControllerConfig:
    """C: a linear controller evolved by CMA-ES (Hansen's pycma)."""

    generations: int = 60
    """Generations of the evolution."""
    population: int = 32
    """Candidates per generation."""
    episodes: int = 4
    """Tracks on which every candidate of a generation drives; new ones in each generation."""
    components: int = 32
    """Principal components of what C sees in which it is evolved; 0 means every one of its weights by itself."""
    sigma: float = 0.1
    """Initial step size."""
    diagonal: int = 0
    """Generations with a diagonal covariance (separable CMA-ES) before the full one; -1 means all."""
    horizon: int = 250
    """Steps of an episode in the first generation."""
    horizon_growth: int = 15
    """Steps added per generation, up to the task's limit."""
    patience: int = 100
    """A fitness episode ends after this many steps without a positive reward; 0 means never."""
    validate_every: int = 10
    """Generations between evaluations of the distribution's mean."""
    validation_episodes: int = 32
    """Tracks of that evaluation, the same ones each time and never used for fitness."""
    backend: str = "envpool"
    """Backend on which fitness and validation are measured."""
    features: tuple[str, ...] = ("z", "h")
    """What the controller sees."""


@dataclass(frozen=True)
class EvaluateConfig:
    """The score that counts."""

    episodes: int = 100
    """Fresh episodes, on the task's reference backend."""
    lockstep: int = 50
    """Environments that run together."""
    steps: int = 0
    """Longest episode, for trying things out; 0 means the task's limit, without which there is no score."""


@dataclass(frozen=True)
class Config:
    """Everything that a run's result depends on."""

    task: str = "car-racing"
    """The world."""
    preset: str = "standard"
    """Name of the preset that the other values come from."""
    seed: int = 1
    """Seed from which every other seed follows."""
    rounds: int = 1
    """Times round the loop collect, V, M, C; later rounds collect with the agent of the last."""
    collect: CollectConfig = field(default_factory=CollectConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    controller: ControllerConfig = field(default_factory=ControllerConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)


PRESETS: dict[str, Config] = {
    "quick": Config(
        preset="quick",
        collect=CollectConfig(episodes=32, reference_episodes=4),
        vision=VisionConfig(epochs=5, batch=64, lr=8e-4),
        memory=MemoryConfig(steps=300, length=150),
        controller=ControllerConfig(
            generations=20, population=24, episodes=3, horizon=200, horizon_growth=15, validation_episodes=16
        ),
        evaluate=EvaluateConfig(episodes=30, lockstep=30),
    ),
    "standard": Config(preset="standard"),
    "paper": Config(
        preset="paper",
        collect=CollectConfig(episodes=9_900, reference_episodes=100),
        vision=VisionConfig(epochs=10, batch=100, lr=1e-4),
        memory=MemoryConfig(steps=4000, batch=100, length=999),
        controller=ControllerConfig(
            generations=300,
            population=64,
            episodes=16,
            horizon=1000,
            patience=0,
            validate_every=25,
            validation_episodes=256,
        ),
        evaluate=EvaluateConfig(episodes=1000),
    ),
}


def preset(name: str) -> Config:
    """The preset called ``name``; an unknown one is a :class:`UserError`."""
    if name not in PRESETS:
        close = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "choose one of them"
        raise UserError(f"unknown preset {name!r}; presets are {', '.join(PRESETS)}; {hint}")
    return PRESETS[name]


_MAY_BE_ZERO = {"reference_episodes", "horizon_growth", "patience", "seed", "kl_tolerance", "diagonal", "components"}


_KINDS: dict[Any, tuple[tuple[type, ...], str]] = {
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "text"),
}


def check(config: Any, where: str = "") -> None:
    """Refuse zero, negative and non-finite numbers and other values that make no sense, naming the option."""
    for item in dataclasses.fields(config):
        value, name = getattr(config, item.name), f"{where}{item.name}".replace("_", "-")
        kinds, wanted = _KINDS.get(item.type, ((object,), ""))
        fits = isinstance(value, kinds) and not isinstance(value, bool)
        if not fits:
            raise UserError(f"--{name} must be {wanted}, got {value!r}")
        if dataclasses.is_dataclass(value):
            check(value, f"{name}.")
        elif item.name == "features" and (not value or not set(value) <= {"z", "h", "c"}):
            raise UserError(f"--{name} must be some of z, h and c, got {' '.join(map(str, value)) or 'nothing'}")
        elif isinstance(value, int | float) and item.name != "diagonal":
            zero = item.name in _MAY_BE_ZERO or (item.name == "steps" and not isinstance(config, MemoryConfig))
            low = 0 if zero else None
            if not (value > 0 or value == low) or value == float("inf"):
                raise UserError(f"--{name} must be {'at least 0' if low == 0 else 'positive'}, got {value}")
            if item.name == "population" and value < 2:
                raise UserError(f"--{name} must be at least 2, got {value}")


def to_json(config: Any) -> dict[str, Any]:
    """The configuration as JSON-able values."""
    content: dict[str, Any] = dataclasses.asdict(config)
    return {name: _plain(value) for name, value in content.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return {key: _plain(one) for key, one in value.items()} if isinstance(value, dict) else value


def from_json(content: dict[str, Any]) -> Config:
    """The configuration that :func:`to_json` wrote; anything else is a :class:`UserError`."""
    parts = {
        "collect": CollectConfig,
        "vision": VisionConfig,
        "memory": MemoryConfig,
        "controller": ControllerConfig,
        "evaluate": EvaluateConfig,
    }
    try:
        values = {name: (parts[name](**value) if name in parts else value) for name, value in content.items()}
        config = Config(**values)
        features = tuple(str(one) for one in config.controller.features)
        config = dataclasses.replace(config, controller=dataclasses.replace(config.controller, features=features))
        check(config)
        return config
    except (TypeError, AttributeError, UserError) as error:
        detail = str(error).replace("__init__() got an unexpected keyword argument", "has no setting")
        raise UserError(f"the run's configuration does not fit this version of worldmodels: {detail}") from None
