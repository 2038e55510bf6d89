"""Any Gymnasium environment as a task: everything follows from its spaces and from a few random episodes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from worldmodels.core.errors import UserError
from worldmodels.tasks.base import Playing, Policy, ProcessWorld, Task, World
from worldmodels.tasks.gym.actions import Actions
from worldmodels.tasks.gym.explorers import HeldActions, Interrupted, RandomActions
from worldmodels.tasks.gym.facts import Facts, facts_json, read_facts
from worldmodels.tasks.gym.found import facts_of
from worldmodels.tasks.gym.playing import GymPlaying
from worldmodels.tasks.gym.presets import preset_tables
from worldmodels.tasks.gym.world import ENVIRONMENT
from worldmodels.tasks.gym_names import same_world, task_name, title_of
from worldmodels.tasks.resize import resized

if TYPE_CHECKING:
    from torch import Tensor

_FRAME = (64, 64, 3)
_TOGETHER_BYTES = 1 << 28
"""Pictures of all environments that run together take at most about this much memory."""


class GymTask(Task):
    """A Gymnasium environment whose observation, or what it renders, is a picture.

    Controls: one for every number of a box and for every choice of two, else one for each choice; see
    :class:`~worldmodels.tasks.gym.actions.Actions`.
    """

    reference_backend = "gymnasium"
    inputs = ("z", "h")

    def __init__(self, facts: Facts) -> None:
        self._facts, self._actions = facts, Actions(facts.action)
        self.name, self.title = task_name(facts.env_id), title_of(facts.env_id)
        self.facts = facts_json(facts)
        self.observation_shape = (*facts.shape[:2], 3)
        self.action_size = self.control_size = self._actions.size
        self.action_space = self._actions.space
        self.max_steps, self.reward_scale = facts.max_steps, facts.reward_scale
        self.max_envs = int(np.clip(_TOGETHER_BYTES // int(np.prod(self.observation_shape)), 24, 256))
        self.num_envs = min(50, self.max_envs)

    @property
    def options(self) -> Mapping[str, Any]:
        """The chosen options of ``gymnasium.make``."""
        return self._facts.options

    @property
    def presets(self) -> Mapping[str, Any]:
        """Presets that follow from the length of episodes and from the action space."""
        return preset_tables(self._facts)

    @property
    def worlds(self) -> Mapping[str, World]:
        """Copies of the environment in worker processes."""
        return {
            "gymnasium": ProcessWorld(
                ENVIRONMENT, self._facts.requires, self._facts.extra, options=self._world_options()
            )
        }

    def _world_options(self) -> dict[str, Any]:
        facts = self._facts
        watched = "rgb_array" if facts.renders and "render_mode" not in facts.options else facts.render_mode
        return {
            "env_id": facts.env_id,
            "options": facts.options,
            "picture": facts.picture,
            "entry": facts.entry,
            "shape": facts.shape,
            "modes": (facts.render_mode, watched),
        }

    @property
    def playing(self) -> Playing:
        """Played with arrow keys, or the environment's own."""
        return GymPlaying(self._facts, self._actions, self._world_options())

    def frames(self, observations: np.ndarray) -> np.ndarray:
        """Pictures (N, H, W, 3), resized to 64x64 with an antialiased bilinear filter."""
        return observations if observations.shape[1:] == _FRAME else resized(observations)

    def env_action(self, control: np.ndarray) -> np.ndarray:
        """Actions (N, ...) of the environment's space."""
        return self._actions.from_control(control)

    def memory_action(self, actions: np.ndarray) -> np.ndarray:
        """Numbers (N, A) float32 between -1 and 1: scaled numbers, or ones and zeros for choices."""
        return self._actions.encode(np.asarray(actions))

    def dream_action(self, control: "Tensor") -> "Tensor":
        """The same for the actions of controls, without leaving the device."""
        return self._actions.encode_control(control)

    def exploration(self, seeds: Sequence[int]) -> Policy:
        """Random actions that are held; how long, and how probable each is, differs between episodes."""
        return HeldActions(self._actions, seeds, max(2, self._facts.episode_steps // 4))

    def perturbed(self, policy: Policy, seeds: Sequence[int]) -> Policy:
        """The policy, interrupted by random actions that are held for some steps."""
        return Interrupted(self._actions, policy, seeds)

    def random_policy(self, seeds: Sequence[int]) -> Policy:
        """Uniformly random actions, drawn anew at every step."""
        return RandomActions(self._actions, seeds)


def gym_task(name: str, options: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> GymTask:
    """The task called ``name``, with options of ``gymnasium.make``.

    facts: what was found before, of a run or an agent; without it, or if it is of other options, the environment is
    tried in a process of its own. Raises :class:`UserError` for an environment that cannot be a task, and for facts of
    another one.
    """
    if facts and facts.get("options", {}) == dict(options):
        known = read_facts(facts, name)
        if not same_world(name, known.env_id):
            raise UserError(f"expected a description of {name}, got one of {task_name(known.env_id)}")
        return GymTask(known)
    return GymTask(facts_of(name, options))
