"""The inputs of a stage: the settings that it uses and the digests of what it reads. They identify its result."""

from dataclasses import dataclass
from typing import Any

import torch

from worldmodels.core.settings import to_json, without_idle
from worldmodels.data.collectors import plays_agent
from worldmodels.dream import config as dream
from worldmodels.evaluation import conditions
from worldmodels.evolution.config import PhaseConfig
from worldmodels.evolution.phases import phases_of
from worldmodels.memory import config as memory
from worldmodels.run.artifacts import Artifacts
from worldmodels.run.stage import flat
from worldmodels.run.variants import evolution_of
from worldmodels.vision import config as vision


@dataclass(frozen=True)
class Inputs:
    """values: the inputs by name, JSON-serialisable; free: the flat names of those that may change later.

    A stage continues if only free inputs ("evaluate.episodes") have changed; any other change would mix experiments.
    """

    values: dict[str, Any]
    free: tuple[str, ...] = ()


def inputs_of_stage(artifacts: Artifacts, name: str, device: torch.device) -> Inputs:
    """The inputs of the stage called ``name``; device: where it works now, on which comparable scores depend.

    Raises :class:`UserError` if a stage that it reads is not finished.
    """
    values, free = _evaluate(artifacts, device) if name == "evaluate" else _KINDS[name](artifacts)
    # What all but the networks depend on; empty for tasks that their name describes.
    world = artifacts.config.world if name not in ("vision", "encode") else {}
    return Inputs({"seed": artifacts.seed, **values, **({"world": world} if world else {})}, free)


Found = tuple[dict[str, Any], tuple[str, ...]]


def _collect(artifacts: Artifacts) -> Found:
    settings = to_json(artifacts.config.collect)
    values: dict[str, Any] = {"collect": settings}
    if artifacts.before is None:
        if not plays_agent(artifacts.task, artifacts.config.collect.policy):
            # So that a new run with other later rounds takes the first one over.
            del settings["later_noise"], settings["later_noise_free"]
    else:
        values["agent"] = {"digest": artifacts.before.digest("controller")}
    return values, ()


def _vision(artifacts: Artifacts) -> Found:
    settings = without_idle(artifacts.config.vision, vision.LATER)
    return {"vision": settings, "episodes": _shown(artifacts, artifacts.episode_digests())}, ()


def _shown(artifacts: Artifacts, data: Any) -> Any:
    """What a network learns from ``data``, the digests of episodes or latents: all of it, or what shows something.

    The key is another one where last frames are left out, so that a network that an earlier version trained with them
    is not taken for this one.
    """
    return data if artifacts.task.shows_end else {"shown": data}


def _encode(artifacts: Artifacts) -> Found:
    return {"vision": artifacts.digest("vision"), "episodes": artifacts.episode_digests()}, ()


def _memory(artifacts: Artifacts) -> Found:
    settings = without_idle(artifacts.config.memory, memory.LATER)
    # The number of dream models does not affect this M.
    del settings["dream_models"]
    values = {"memory": settings, "latents": _shown(artifacts, artifacts.digest("encode"))}
    missing = artifacts.config.collect.missing
    return values | ({"missing": list(missing)} if missing else {}), ()


def _controller(artifacts: Artifacts) -> Found:
    evolution = evolution_of(artifacts.config.evolution, artifacts.variant)
    phases = dict(phases_of(evolution))
    uses_dreams = any(phase.world == "dream" for phase in phases.values())
    seen: dict[str, Any] = {"inputs": list(artifacts.inputs)}
    if artifacts.variant and artifacts.before is not None:
        # The C from which the full agent starts is known by the latents, which are of episodes that it has played. The
        # key is not that of the first round, so that an ablation that started from zero is not taken for this one.
        seen = {"inputs": {"names": list(artifacts.inputs)}, "start": artifacts.before.digest("controller")}
    if artifacts.config.controller.acts_on != "mean":
        seen["acts_on"] = artifacts.config.controller.acts_on
    if artifacts.hidden:
        seen["hidden"] = artifacts.hidden
    settings = to_json(evolution)
    # What later rounds run is the sequence of their own settings.
    del settings["later_sequence"]
    if evolution.starts == 1:
        # As in evolutions of earlier versions, which lack the setting.
        del settings["starts"]
    if evolution.starts == 1 or evolution.good_start is None:
        del settings["good_start"]  # likewise
    if evolution.symmetry == "none":
        del settings["symmetry"]  # likewise
    if artifacts.before is None or evolution.carry == "weights":
        # There is nothing to carry over in the first round; and see _LATER.
        del settings["carry"]
    values = {
        "evolution": settings | {"phases": {name: _of_phase(phase) for name, phase in phases.items()}},
        "controller": seen,
        **({"dream": without_idle(artifacts.config.dream, dream.LATER)} if uses_dreams else {}),
        "vision": artifacts.digest("vision"),
        "memory": "untrained" if artifacts.variant == "untrained-m" else artifacts.digest("memory"),
        **({"dream_models": [model.digest("memory") for model in artifacts.dream_models]} if uses_dreams else {}),
        "latents": artifacts.digest("encode"),
    }
    return values, tuple(f"evolution.phases.{name}.generations" for name in phases)


def _of_phase(phase: PhaseConfig) -> dict[str, Any]:
    """The settings of a phase, without those at their default that did not exist when earlier evolutions began."""
    values, defaults = to_json(phase), to_json(PhaseConfig())
    return {name: value for name, value in values.items() if name not in _LATER or value != defaults[name]}


_LATER = ("elite_fraction", "crossover", "hard_episodes", "finish_bonus")
"""Settings of a phase by which unfinished evolutions of earlier versions, which lack them, would not be recognised."""


def _evaluate(artifacts: Artifacts, device: torch.device) -> Found:
    values = {
        "evaluate": to_json(artifacts.config.evaluate),
        "agent": artifacts.digest("controller"),
        # Scores that are compared, such as those of ablations, must be taken under equal conditions.
        "conditions": conditions(artifacts.task, artifacts.task.reference_backend, device),
    }
    return values, tuple(flat(values))


_KINDS = {
    "collect": _collect,
    "vision": _vision,
    "encode": _encode,
    "memory": _memory,
    "controller": _controller,
}
