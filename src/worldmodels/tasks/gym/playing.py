"""How people watch and play a Gymnasium environment."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from worldmodels.tasks.base import Playing
from worldmodels.tasks.gym.actions import Actions
from worldmodels.tasks.gym.facts import Facts
from worldmodels.tasks.gym.key_help import key_help
from worldmodels.tasks.gym.keys import AXES, ORDER, held_choice, other_choices, resting
from worldmodels.tasks.gym.world import ENVIRONMENT


class GymPlaying(Playing):
    """Played with arrow keys, and where choices are numbered with digits.

    A box: left and right for its first number, down and up for its second, pairs of digits for the next ones; a choice:
    the environment's own keys, or arrows by the names of the choices, and digits; several choices: a key for each but
    the first of every part, the arrows and then the digits, as far as they go.
    """

    gymnasium_id = ENVIRONMENT

    def __init__(self, facts: Facts, actions: Actions, world_options: Mapping[str, Any]) -> None:
        self._facts, self._actions, self._options = facts, actions, dict(world_options)
        self.frames_per_second = facts.frames_per_second
        self.action_names, self.action_ranges = actions.labels, actions.ranges
        self.key_meanings, self.without_keys = key_help(facts.action)
        used = {key for keys, _ in self.key_meanings for key in keys}
        used |= {key for entry in facts.action.keys for key in entry.rpartition("=")[0].split("+")}
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
            return self._moved([float(higher in held) - float(lower in held) for lower, higher in AXES])
        chosen = np.array(facts.start, np.int64)
        for key, (part, choice) in zip(ORDER, other_choices(facts), strict=False):
            if key in held:
                chosen[part] = facts.start[part] + choice
        return chosen.astype(self._actions.space.dtype)

    def stick_action(self, steer: float, forward: float, back: float) -> np.ndarray:
        """The stick moves the first number of a box and the triggers the second; for choices, they count as arrows."""
        if not self._actions.is_box:
            return super().stick_action(steer, forward, back)
        return self._moved([steer, forward - back])

    def _moved(self, ways: Sequence[float]) -> np.ndarray:
        """The action of a box whose first numbers are moved by ``ways``: -1 lowest, 0 as without keys, 1 highest."""
        facts = self._facts.action
        low, high = np.array(facts.low), np.array(facts.high)
        rest = 2 * (np.array([resting(*bounds) for bounds in zip(low, high, strict=True)]) - low) / (high - low) - 1
        way = np.zeros(len(low))
        way[: len(ways)] = np.clip(ways[: len(low)], -1, 1)
        control = rest + way * np.where(way > 0, 1 - rest, 1 + rest)
        return np.array(self._actions.from_control(control[None])[0])
