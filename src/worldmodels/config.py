"""Settings of every stage as frozen dataclasses. Imports nothing heavy."""

import dataclasses
from dataclasses import dataclass, field, replace
from typing import Any

from worldmodels.errors import UserError


@dataclass(frozen=True)
class CollectConfig:
    """Episodes of the policy (first round) or of the last round's agent."""

    episodes: int = 128
    """Episodes on the fast backend."""
    reference_episodes: int = 48
    """Episodes on the reference backend, so that V sees its rendering too."""
    reference_steps: int = 250
    """Longest of those: many beginnings, where renderers differ most, tell V more; 0 means the task's limit."""
    lockstep: int = 32
    """Environments that run together; also the episodes of one flush."""
    backend: str = "envpool"
    """Backend of the first number of episodes."""
    steps: int = 0
    """Longest episode; 0 means the task's limit."""
    policy: str = "exploration"
    """Who plays in the first round: exploration (what suits the world), disturbed (the same with noise and lapses,
    which dreams need where explorers know what they do), random, one of the world's rules with noise, rainbow (a
    Rainbow DQN that learns meanwhile; extra rl), or an agent with noise: a shipped one's name, or a path.
    Short: --policy."""


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
    emphasis: float = 0.0
    """How much more an error counts where a picture differs from the usual one; above 0 for worlds in which small
    things matter. A pixel counts 1 + emphasis * (its distance from the batch's mean picture, 0 to 1)."""
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
    burn_in: int = 0
    """Transitions before each sequence that M follows without learning, so that it begins with a memory."""
    lr: float = 1e-3
    """Adam's highest learning rate; it falls to a hundredth along a cosine."""
    clip: float = 1.0
    """Gradients are clipped to this value, element by element."""
    end_weight: float = 10.0
    """How many times an end counts in the loss of the end head."""
    dreamers: int = 0
    """Further Ms, each trained by itself on the same latents. C is evolved in their dreams, where its own M only
    follows, as it does in the real world; with none, its own M dreams and C sees all that the dream is made of."""


@dataclass(frozen=True)
class ControllerConfig:
    """C: a linear controller evolved by CMA-ES (Hansen's pycma) or another strategy."""

    strategy: str = "cma"
    """What evolves it: cma, sep-cma (a diagonal covariance for good) or pepg (parameter-exploring policy gradients)."""
    generations: int = 60
    """Generations of the evolution."""
    population: int = 16
    """Candidates per generation."""
    episodes: int = 4
    """Tracks on which every candidate of the first generation drives; new ones in each generation."""
    episodes_growth: float = 0.04
    """Tracks added per generation: the closer candidates come to each other, the finer they must be told apart."""
    revisit: float = 0.25
    """Share of them (never all) on which the candidates of the generation before did worst."""
    components: int = 32
    """Principal components of what C sees in which it is evolved; 0 means every one of its weights by itself."""
    sigma: float = 0.1
    """Initial step size."""
    sigma_decay: float = 0.98
    """Factor of the step size after every generation, on top of the strategy's own adaptation."""
    sigma_hold: int = 14
    """Generations before that decay begins."""
    diagonal: int = -1
    """cma: generations with a diagonal covariance (separable CMA-ES) before the full one; -1 means all."""
    lr: float = 0.01
    """pepg: Adam's learning rate of the mean."""
    weight_decay: float = 0.005
    """pepg: what a candidate loses of its rank (-0.5 to 0.5) per mean square of its point in the search space."""
    horizon: int = 250
    """Steps of an episode in the first generation."""
    horizon_growth: int = 15
    """Steps added per generation, up to the task's limit."""
    polish: int = 16
    """Generations that follow, from the best mean and around what it meets: small steps on many tracks, the hardest of
    which are met again."""
    patience: int = 60
    """A fitness episode ends after this many steps without a positive reward; 0 means never."""
    validate_every: int = 10
    """Generations between evaluations of the distribution's mean."""
    validation_episodes: int = 32
    """Tracks of that evaluation, the same ones each time and never used for fitness."""
    finalists: int = 1
    """Best means of these evaluations that are evaluated once more in the end; the best over all its episodes counts.
    1: the best evaluation counts."""
    final_episodes: int = 200
    """Episodes of that evaluation, other ones."""
    backend: str = "envpool"
    """Backend on which fitness and validation are measured."""
    features: tuple[str, ...] = ("z", "h")
    """What the controller sees."""
    world: str = "real"
    """Where it is evolved: real, dream, or dream,real (first there, then on in the real world). Short: --world."""


def polishing(controller: ControllerConfig, limit: int) -> ControllerConfig:
    """The settings of the last generations (``polish``); ``limit``: the task's steps."""
    return replace(
        controller,
        generations=controller.polish,
        episodes=2 * controller.episodes,
        episodes_growth=0.0,
        revisit=0.4,
        sigma=0.4 * controller.sigma,
        lr=0.3 * controller.lr,
        sigma_decay=0.98,
        sigma_hold=0,
        polish=0,
        horizon=limit,
        horizon_growth=0,
        validate_every=min(4, controller.polish),
    )


@dataclass(frozen=True)
class DreamConfig:
    """Evolution of C inside the dream; validation is always in the real world."""

    generations: int = 100
    """Generations of the evolution."""
    population: int = 32
    """Candidates per generation."""
    episodes: int = 32
    """Dreams that every candidate of a generation dreams; new ones in each generation."""
    steps: int = 0
    """Longest dream; 0 means the task's limit."""
    begins: tuple[int, ...] = ()
    """Steps of recorded episodes at which dreams begin, M having followed so far; empty means the world's own."""
    temperature: float = 1.15
    """Uncertainty of the dream: logits are divided by it, noise is multiplied by its square root."""
    ends: str = "sample"
    """How a dream ends: sample (as often as ends come) or threshold (where the weighted end head exceeds 0.5)."""
    sigma: float = 0.1
    """Initial step size in the first round."""
    later_sigma: float = 0.1
    """That of later rounds, which begin with the C of the last: beside its weights, a small step changes nothing."""
    validate_every: int = 10
    """Generations between evaluations of the distribution's mean in the real world."""
    validation_episodes: int = 64
    """Episodes of that evaluation."""
    finalists: int = 1
    """As the controller's."""
    final_episodes: int = 200
    """As the controller's."""


@dataclass(frozen=True)
class DreamReportConfig:
    """How much the report measures."""

    episodes: int = 24
    """Real episodes that dreams are held against."""
    horizon: int = 200
    """Longest prediction, in steps."""
    starts: int = 8
    """Moments of each episode from which it is dreamt on."""
    controllers: int = 40
    """Controllers of all strengths whose dream and real scores are compared."""
    controller_episodes: int = 16
    """Real episodes of each of them; four times as many dreams."""
    temperatures: tuple[float, ...] = (0.1, 0.5, 1.0, 1.15, 1.3)
    """Temperatures at each of which a controller is evolved in the dream."""
    generations: int = 30
    """Generations of each of those evolutions; 0 leaves them out."""
    games: int = 100
    """Real episodes and dreams on which their results are scored."""
    steps: int = 0
    """Longest episode and dream; 0 means the task's limit."""


def in_the_dream(controller: ControllerConfig, dream: DreamConfig, limit: int) -> ControllerConfig:
    """The settings of an evolution in the dream, in the terms of one in the real world; ``limit``: the task's steps."""
    return replace(
        controller,
        generations=dream.generations,
        population=dream.population,
        episodes=dream.episodes,
        episodes_growth=0.0,
        revisit=0.0,
        sigma=dream.sigma,
        polish=0,
        horizon=min(dream.steps or limit, limit),
        horizon_growth=0,
        patience=0,
        validate_every=dream.validate_every,
        validation_episodes=dream.validation_episodes,
        finalists=dream.finalists,
        final_episodes=dream.final_episodes,
    )


def after_dreams(controller: ControllerConfig, limit: int) -> ControllerConfig:
    """The settings with which a C that has been evolved in dreams goes on in the real world: it can do much already."""
    return replace(controller, sigma=0.5 * controller.sigma, sigma_hold=0, horizon=limit, horizon_growth=0)


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
    later: float = 0.5
    """How much of the first round's episodes, of V's epochs and of M's steps each later round adds to what is there."""
    collect: CollectConfig = field(default_factory=CollectConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    controller: ControllerConfig = field(default_factory=ControllerConfig)
    dream: DreamConfig = field(default_factory=DreamConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)


def in_a_later_round(config: Config) -> Config:
    """The settings of every round after the first."""
    collect, vision, memory = config.collect, config.vision, config.memory

    def share(count: int) -> int:
        return max(1, round(config.later * count)) if count else 0

    return replace(
        config,
        collect=replace(
            collect, episodes=share(collect.episodes), reference_episodes=share(collect.reference_episodes)
        ),
        vision=replace(vision, epochs=config.later * vision.epochs),
        memory=replace(memory, steps=share(memory.steps)),
        dream=replace(config.dream, sigma=config.dream.later_sigma),
    )


_MAY_BE_ZERO = {
    "reference_episodes",
    "reference_steps",
    "burn_in",
    "dreamers",
    "kl_tolerance",
    "emphasis",
    "components",
    "episodes_growth",
    "diagonal",
    "weight_decay",
    "sigma_hold",
    "revisit",
    "horizon_growth",
    "patience",
    "polish",
    "seed",
}
_CHOICES = {
    "world": ("real", "dream", "dream,real"),
    "ends": ("sample", "threshold"),
    "strategy": ("cma", "sep-cma", "pepg"),
}

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
        elif item.name == "begins" and not all(type(one) is int and one >= 0 for one in value):
            raise UserError(f"--{name} must be whole numbers of at least 0, got {' '.join(map(str, value))}")
        elif item.name == "temperatures" and not (value and all(0 < one < float("inf") for one in value)):
            raise UserError(f"--{name} must be positive numbers, got {' '.join(map(str, value)) or 'nothing'}")
        elif item.name in _CHOICES and value not in _CHOICES[item.name]:
            raise UserError(f"--{name} must be one of {', '.join(_CHOICES[item.name])}, got {value!r}")
        elif isinstance(value, int | float) and item.name != "diagonal":
            zero = item.name in _MAY_BE_ZERO or (item.name == "steps" and not isinstance(config, MemoryConfig))
            zero = zero or (item.name == "generations" and isinstance(config, DreamReportConfig))
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
        "dream": DreamConfig,
        "evaluate": EvaluateConfig,
    }
    try:
        values = {name: (parts[name](**value) if name in parts else value) for name, value in content.items()}
        config = Config(**values)
        features = tuple(str(one) for one in config.controller.features)
        config = dataclasses.replace(
            config,
            controller=dataclasses.replace(config.controller, features=features),
            dream=dataclasses.replace(config.dream, begins=tuple(config.dream.begins)),
        )
        check(config)
        return config
    except (TypeError, AttributeError, UserError) as error:
        detail = str(error).replace("__init__() got an unexpected keyword argument", "has no setting")
        raise UserError(f"the run's configuration does not fit this version of worldmodels: {detail}") from None
