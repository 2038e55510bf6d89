"""The presets: settings by task and name. Imports nothing heavy."""

import difflib
from dataclasses import replace

from worldmodels.config import (
    CollectConfig,
    Config,
    ControllerConfig,
    DreamConfig,
    EvaluateConfig,
    MemoryConfig,
    VisionConfig,
)
from worldmodels.errors import UserError

_SHORT_DREAMS = DreamConfig(
    generations=60, population=24, episodes=24, steps=300, temperature=1.0, validation_episodes=32
)
_CAR_RACING = {
    "quick": Config(
        preset="quick",
        collect=CollectConfig(episodes=32, reference_episodes=16),
        vision=VisionConfig(epochs=5, batch=64, lr=8e-4),
        memory=MemoryConfig(steps=300, length=150),
        controller=ControllerConfig(
            generations=24,
            population=16,
            episodes=3,
            episodes_growth=0.02,
            revisit=0.34,
            sigma_decay=0.96,
            horizon=200,
            horizon_growth=12,
            polish=0,
            validation_episodes=16,
        ),
        dream=replace(_SHORT_DREAMS, generations=40, population=16, episodes=16, validation_episodes=16),
        evaluate=EvaluateConfig(episodes=30, lockstep=30),
    ),
    "standard": Config(preset="standard", dream=_SHORT_DREAMS),
    # Evolved in dreams alone, from drivers that lapse now and then: see CarRacing.noisy.
    "dream": Config(
        preset="dream",
        collect=CollectConfig(policy="disturbed"),
        vision=VisionConfig(epochs=3),
        memory=MemoryConfig(steps=1500),
        controller=ControllerConfig(world="dream"),
        dream=_SHORT_DREAMS,
    ),
    "paper": Config(
        preset="paper",
        later=1.0,
        collect=CollectConfig(episodes=9_900, reference_episodes=100, reference_steps=0),
        vision=VisionConfig(epochs=10, batch=100, lr=1e-4),
        memory=MemoryConfig(steps=4000, batch=100, length=999),
        controller=ControllerConfig(
            generations=300,
            population=64,
            episodes=16,
            episodes_growth=0.0,
            revisit=0.0,
            components=0,
            sigma_decay=1.0,
            diagonal=0,
            polish=0,
            horizon=1000,
            patience=0,
            validate_every=25,
            validation_episodes=256,
        ),
        dream=replace(_SHORT_DREAMS, generations=300, population=64),
        evaluate=EvaluateConfig(episodes=1000),
    ),
}

_DOOM = Config(
    task="take-cover",
    collect=CollectConfig(episodes=600, reference_episodes=0, lockstep=50, backend="vizdoom"),
    vision=VisionConfig(latent_size=64, epochs=2.5, batch=64, lr=8e-4, emphasis=20.0),
    memory=MemoryConfig(hidden_size=512, batch=24, length=200, burn_in=2100, steps=2000, dreamers=1),
    controller=ControllerConfig(backend="vizdoom", features=("z", "c", "h"), world="dream", components=64, polish=0),
    # Games get harder while they last, since imps gather: dreams begin at all stages of them.
    dream=DreamConfig(
        generations=16,
        population=24,
        episodes=48,
        steps=800,
        begins=(0, 200, 400, 600, 800, 1000),
        ends="threshold",
        later_sigma=0.4,
        validate_every=4,
        validation_episodes=100,
        finalists=3,
    ),
    evaluate=EvaluateConfig(episodes=400, lockstep=50),
)
_TAKE_COVER = {
    "quick": replace(
        _DOOM,
        preset="quick",
        collect=replace(_DOOM.collect, episodes=200),
        memory=replace(_DOOM.memory, steps=600, dreamers=0),
        dream=replace(_DOOM.dream, generations=12, population=16, episodes=16, validation_episodes=50, finalists=1),
        evaluate=EvaluateConfig(episodes=100, lockstep=50),
    ),
    "standard": replace(_DOOM, preset="standard", rounds=3, later=0.35),
    "paper": replace(
        _DOOM,
        preset="paper",
        later=1.0,
        collect=replace(_DOOM.collect, episodes=10_000, policy="random"),
        vision=VisionConfig(latent_size=64, epochs=10, batch=100, lr=1e-4),
        memory=replace(_DOOM.memory, steps=24_400, batch=100, length=500, dreamers=0),
        controller=replace(_DOOM.controller, components=0, sigma_decay=1.0, diagonal=0),
        dream=DreamConfig(
            generations=2000,
            population=64,
            episodes=16,
            ends="threshold",
            validate_every=25,
            validation_episodes=256,
        ),
        evaluate=EvaluateConfig(episodes=1000, lockstep=50),
    ),
}

_PACKING = Config(
    task="bin-packing",
    collect=CollectConfig(episodes=150, reference_episodes=0, lockstep=50, backend="native"),
    vision=VisionConfig(epochs=4, batch=64, lr=8e-4),
    memory=MemoryConfig(),
    controller=ControllerConfig(
        backend="native",
        features=("z",),
        polish=0,
        generations=60,
        episodes=6,
        episodes_growth=0.05,
        revisit=0.34,
        sigma_hold=30,
        horizon=200,
        horizon_growth=16,
        patience=0,
        validation_episodes=128,
    ),
    dream=DreamConfig(generations=60, population=16, steps=100, temperature=1.0),
    evaluate=EvaluateConfig(episodes=1000, lockstep=250),
)
_BIN_PACKING = {
    "quick": replace(
        _PACKING,
        preset="quick",
        collect=replace(_PACKING.collect, episodes=50),
        vision=replace(_PACKING.vision, epochs=3),
        memory=MemoryConfig(steps=300, length=150),
        controller=replace(_PACKING.controller, generations=50, episodes=4, sigma_hold=20),
        evaluate=EvaluateConfig(episodes=250, lockstep=250),
    ),
    "standard": replace(_PACKING, preset="standard"),
    "paper": replace(
        _PACKING,
        preset="paper",
        later=1.0,
        collect=replace(_PACKING.collect, episodes=10_000),
        vision=VisionConfig(epochs=10, batch=100, lr=1e-4),
        memory=MemoryConfig(steps=4000, batch=100, length=999),
        controller=replace(
            _PACKING.controller, generations=1000, population=58, episodes=16, episodes_growth=0.0, components=0
        ),
    ),
}
_BIN_PACKING_VARIANTS = {
    task: {name: replace(config, task=task) for name, config in _BIN_PACKING.items()}
    for task in (
        "bin-packing-published",
        "bin-packing-9-linear-waste",
        "bin-packing-9-perfect-packing",
        "bin-packing-9-bounded-waste",
    )
}

PRESETS: dict[str, dict[str, Config]] = {
    "car-racing": _CAR_RACING,
    "take-cover": _TAKE_COVER,
    "bin-packing": _BIN_PACKING,
    **_BIN_PACKING_VARIANTS,
}
"""By task, then by name."""


def preset(name: str, task: str = "car-racing") -> Config:
    """The preset called ``name`` of a task; an unknown one is a :class:`UserError`."""
    known = PRESETS[task]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "choose one of them"
        raise UserError(f"unknown preset {name!r}; presets are {', '.join(known)}; {hint}")
    return known[name]
