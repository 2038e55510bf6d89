"""Ablations of C: which apply to a run, how each of them is evolved, and what it lacks, in words.

Every ablation goes through the same rounds and phases as the full agent, with as many generations, candidates and
episodes, so that its score says what the missing part is worth. Where an ablation cannot be evolved in the world in
which the full agent was evolved, the phase takes place in the other world, and its text says so.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from worldmodels.core.errors import UserError
from worldmodels.evolution.config import EvolutionConfig
from worldmodels.evolution.phases import phases_in, phases_of, phases_of_all_rounds
from worldmodels.run.config import Config
from worldmodels.run.names import VARIANTS
from worldmodels.run.presets import task_of

_INPUTS: dict[str, tuple[str, ...]] = {
    "v-only": ("z",),
    "v-only-hidden": ("z",),
    "z-h": ("z", "h"),
    "z-c-h": ("z", "c", "h"),
    "mask-only": (),
}
"""The inputs of C in variants that see something else than the full agent."""
_PAPER_HIDDEN = 40
"""Hidden units of the paper's C that sees z alone."""
_WORLDS = {"untrained-m": "real", "dream-only": "dream"}
"""The world of all phases in variants whose C cannot be evolved elsewhere."""
_EQUAL = "with the same rounds, phases, generations, candidates and episodes as the full agent"


def variants_of(config: Config) -> list[str]:
    """The ablations that apply to a run with these settings, in the order of the table."""
    return [name for name in VARIANTS if not _why_not(config, name)]


def chosen_variants(config: Config, names: Sequence[str]) -> list[str]:
    """The ablations ``names`` in the order of the table, all that apply if there are none.

    Raises :class:`UserError` for one that does not exist, or does not apply to a run with these settings.
    """
    for name in names:
        if name not in VARIANTS:
            raise UserError(f"unknown ablation {name!r}; choose from {', '.join(VARIANTS)}")
        if reason := _why_not(config, name):
            applicable = ", ".join(variants_of(config)) or "none"
            raise UserError(f"the ablation {name} does not apply: {reason}; those that apply to this run: {applicable}")
    return [name for name in variants_of(config) if name in names or not names]


def _why_not(config: Config, variant: str) -> str:
    """Why an ablation does not apply to a run with these settings; empty if it does."""
    worlds, own = _worlds(config.evolution), (set(config.controller.inputs), config.controller.hidden)
    if variant == "mask-only":
        return "" if task_of(config).masked else f"{config.task} has no action masks"
    if variant == "untrained-m":
        return "" if own[0] & {"h", "c"} else "the run's own C does not see M's state"
    if variant == "dream-only":
        if "real" not in worlds:
            return "the run's own C is evolved in dreams alone"
        return "" if phases_in(config.evolution, "dream") else "the preset has no phase in dreams"
    same = own == (set(_INPUTS[variant]), hidden_of(config, variant))
    return "the run's own C has the same inputs and hidden units" if same else ""


def hidden_of(config: Config, variant: str) -> int:
    """The number of hidden units of C in a variant; that of the settings for the full agent, whose variant is ""."""
    if variant in ("v-only", "mask-only"):
        return 0
    return config.controller.hidden or (_PAPER_HIDDEN if variant == "v-only-hidden" else 0)


def inputs_of(config: Config, variant: str) -> tuple[str, ...]:
    """The inputs of C in a variant; those of the settings for the full agent, whose variant is ""."""
    return _INPUTS.get(variant, config.controller.inputs)


def evolution_of(config: EvolutionConfig, variant: str) -> EvolutionConfig:
    """The settings of evolution in a variant: those of the full agent, if need be with another world in each phase."""
    if variant not in _WORLDS:
        return config
    phases = {name: replace(phase, world=_WORLDS[variant]) for name, phase in phases_of_all_rounds(config)}
    if variant == "dream-only":
        # The preset says how long dreams may be, because M's dreams drift away from the world.
        dream = config.phases[phases_in(config, "dream")[0]]
        steps, growth = dream.max_steps, dream.max_steps_growth
        real = {name: phases[name] for name, phase in phases_of_all_rounds(config) if phase.world == "real"}
        # Dreams do not tell which episodes are finished either.
        other: dict[str, Any] = {
            "max_steps": steps,
            "max_steps_growth": growth,
            "finish_bonus": 0.0,
            "hard_episodes": "lowest",
        }
        phases |= {name: replace(phase, **other) for name, phase in real.items()}
    return replace(config, phases=config.phases | phases)


def difference(config: Config, variant: str) -> str:
    """What distinguishes a variant from the full agent, in a sentence for people."""
    if variant in ("v-only", "v-only-hidden", "z-h", "z-c-h"):
        return f"{_c_in_words(config, variant)}; {_EQUAL}"
    if variant == "mask-only":
        return f"C sees nothing and has only its biases: the action mask does the rest; {_EQUAL}"
    if variant == "dream-only":
        length = f"as long as in the preset's phase {phases_in(config.evolution, 'dream')[0]}, since dreams drift"
        return f"C is evolved in dreams alone ({length}) and validated in the real world, as always; {_EQUAL}"
    if variant == "untrained-m" and "dream" in _worlds(config.evolution):
        return (
            "M keeps the random weights it began with; an untrained M cannot dream, so C is evolved in the real world "
            f"where the full agent is evolved in dreams; {_EQUAL}"
        )
    return f"M keeps the random weights it began with; {_EQUAL}"


def _c_in_words(config: Config, variant: str) -> str:
    """Inputs and hidden units of C in a variant, as far as they can differ from the full agent's."""
    *most, last = inputs_of(config, variant)
    seen = f"{', '.join(most)} and {last}" if most else f"{last} alone, without M's state"
    hidden = hidden_of(config, variant)
    units = f", through a hidden layer of {hidden} units" if hidden else ""
    linear = ", by a linear map" if config.controller.hidden and not hidden else ""
    return f"C sees {seen}{units}{linear}"


def label(config: Config, variant: str) -> str:
    """The name of a variant in tables; it says where C is evolved if the full agent is evolved elsewhere."""
    before, after = _worlds(config.evolution), _worlds(evolution_of(config.evolution, variant))
    if before == after:
        return variant
    return f"{variant}, evolved in {'dreams' if after == {'dream'} else 'the real world'}"


def budget(config: Config, variant: str) -> dict[str, Any]:
    """The rounds and phases of a variant's evolution as JSON: their worlds, generations, candidates and episodes."""
    shown = ("world", "generations", "population", "episodes", "episodes_growth", "max_steps", "max_steps_growth")

    def phases(sequence: Sequence[str]) -> list[dict[str, Any]]:
        evolution = evolution_of(replace(config.evolution, sequence=tuple(sequence)), variant)
        return [{"name": name} | {key: getattr(phase, key) for key in shown} for name, phase in phases_of(evolution)]

    evolution = config.evolution
    different = config.rounds > 1 and evolution.later_sequence
    later = {"later_phases": phases(evolution.later_sequence)} if different else {}
    return {"rounds": config.rounds, "phases": phases(evolution.sequence), **later}


def _worlds(config: EvolutionConfig) -> set[str]:
    return {phase.world for _, phase in phases_of_all_rounds(config)}
