"""How people watch and play a Gymnasium environment."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from worldmodels.tasks.base import Playing
from worldmodels.tasks.gym.actions import Actions
from worldmodels.tasks.gym.facts import Facts
from worldmodels.tasks.gym.keys import held_choice
from worldmodels.tasks.gym.world import ENVIRONMENT

_AXES = (("left", "right"), ("down", "up"))
"""Keys that lower and raise the first two numbers of a box."""
_ORDER = ("left", "right", "up", "down")
"""Keys of the further choices of several parts, in order."""


class GymPlaying(Playing):
    """Played with arrow keys, and where choices are numbered with digits.

    A box: left and right for its first number, down and up for its second; a choice: the environment's own keys, or
    arrows by the names of the choices; several choices: one arrow for each, as far as they go.
    """

    gymnasium_id = ENVIRONMENT

    def __init__(self, facts: Facts, actions: Actions, world_options: Mapping[str, Any]) -> None:
        self._facts, self._actions, self._options = facts, actions, dict(world_options)
        self.frames_per_second = facts.frames_per_second
        self.action_names, self.action_ranges = actions.labels, actions.ranges
        used = {key for entry in facts.action.keys for key in entry.rpartition("=")[0].split("+")}
        self.more_keys = tuple(sorted(key for key in used if len(key) == 1))

    @property
    def gymnasium_options(self) -> dict[str, Any]:
        """Which environment it is, and where its pictures are."""
        return dict(self._options)

    def key_action(self, held: frozenset[str]) -> np.ndarray:
        """The environment's action for the keys that are held."""
        facts = self._facts.action
        if facts.kind == "discrete":
            return np.asarray(held_choice(facts.keys, held, facts.idle) + facts.start[0], self._actions.space.dtype)
        if facts.kind == "box":
            control = np.zeros((1, self._actions.size), np.float32)
            for index, (lower, higher) in enumerate(_AXES[: self._actions.size]):
                control[0, index] = float(higher in held) - float(lower in held)
            return np.array(self._actions.from_control(control)[0])
        chosen = np.array(facts.start, np.int64)
        others = [(part, choice) for part, size in enumerate(facts.sizes) for choice in range(1, size)]
        for key, (part, choice) in zip(_ORDER, others, strict=False):
            if key in held:
                chosen[part] = facts.start[part] + choice
        return chosen.astype(self._actions.space.dtype)

    def stick_action(self, steer: float, forward: float, back: float) -> np.ndarray:
        """The stick moves the first number of a box and the triggers the second; for choices, they count as arrows."""
        if not self._actions.is_box:
            return super().stick_action(steer, forward, back)
        control = np.zeros((1, self._actions.size), np.float32)
        control[0, :2] = np.clip([steer, forward - back], -1, 1)[: self._actions.size]
        return np.array(self._actions.from_control(control)[0])
