"""Presets that follow from a world: budgets are in steps, so that short and long episodes take about as long."""

from typing import Any

from worldmodels.tasks.gym.facts import Facts

_RECORDED = {"standard": 40_000, "quick": 16_000}
"""Steps of all recorded episodes."""
_EVOLVED = {"standard": 1_500_000, "quick": 400_000}
"""Steps of all fitness episodes, about."""
_VALIDATED = {"standard": 20_000, "quick": 10_000}
"""Steps of a validation, about."""
_GENERATIONS = {"standard": 60, "quick": 25}
_POPULATION = 16
_EPOCHS = 4.0
"""Epochs of V."""
_LONGEST_RECORDED = 1000
"""Recorded episodes are cut off after so many steps, so that there are many of them."""
_SHARD_STEPS = 32_768
"""Steps of all episodes that are recorded together, at most: memory grows with them."""
_LONG = 1000
"""Fitness episodes of worlds with longer ones are cut short at first."""


def preset_tables(facts: Facts) -> dict[str, Any]:
    """The tables "standard" and "quick", as a ``presets.toml`` has them."""
    return {"standard": _table(facts, "standard"), "quick": _table(facts, "quick")}


def _table(facts: Facts, name: str) -> dict[str, Any]:
    limit, usual = facts.max_steps, min(facts.episode_steps, facts.max_steps)
    recorded = min(limit, _LONGEST_RECORDED)
    together = _within(_SHARD_STEPS // recorded, 4, 32)
    phase = _phase(facts, name)
    dream = {"world": "dream", "generations": 40, "population": 16, "episodes": 16, "sigma": phase["sigma"]}
    dream |= {"validation_episodes": phase["validation_episodes"], "max_steps": min(limit, 300)}
    return {
        "collect": {
            "episodes": _within(_RECORDED[name] // min(usual, recorded), 16, 2048),
            "reference_episodes": 0,
            "num_envs": together,
            "steps": recorded if recorded < limit else 0,
        },
        # What moves is often small, and most of the picture the same at every step.
        "vision": {"epochs": _EPOCHS, "batch": 64, "lr": 8e-4, "foreground_weight": 10.0},
        "memory": {"steps": 1000 if name == "standard" else 300, "length": _within(recorded, 1, 100)},
        "controller": {"inputs": ["z", "h"]},
        "evaluate": {"episodes": 100, "num_envs": 50},
        "evolution": {
            "sequence": ["real"],
            "phases": {
                "real": phase,
                "dream": dream,
                "real-after-dream": phase | {"sigma": phase["sigma"] / 2, "sigma_hold": 0, "max_steps": 0}
                | {"max_steps_growth": 0},
            },
        },
    }  # fmt: skip


def _phase(facts: Facts, name: str) -> dict[str, Any]:
    limit, usual = facts.max_steps, min(facts.episode_steps, facts.max_steps)
    # Better controllers may live longer than random ones.
    expected = min(limit, max(4 * usual, 100), _LONG)
    generations = _GENERATIONS[name]
    episodes = _within(_EVOLVED[name] // (generations * _POPULATION * expected), 1, 8)
    validation = _within(_VALIDATED[name] // min(limit, 2 * expected), 8, 32)
    phase: dict[str, Any] = {
        "generations": generations,
        "population": _POPULATION,
        "episodes": episodes,
        "episodes_growth": 0.05 if name == "standard" else 0.0,
        # Only the sign or the order of most controls matters, so that the size of the first steps does not; the numbers
        # of a box need larger ones than CarRacing's.
        "sigma": 0.3,
        "sigma_hold": generations // 2,
        "validate_every": 5,
        "validation_episodes": validation,
        "reevaluate_top_k": 3,
        "reevaluation_episodes": 2 * validation,
    }
    if limit > _LONG:
        phase |= {"max_steps": _LONG // 2, "max_steps_growth": _LONG // generations}
    return phase


def _within(value: int, low: int, high: int) -> int:
    return max(low, min(high, value))
