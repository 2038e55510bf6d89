"""The learner, a Rainbow DQN that plays the environments of one shard together and learns while it plays.

Of Rainbow (Hessel et al. 2018) it has the parts that the published bin packing project uses (see
``tasks/bin_packing/task.py``): value distributions (C51), prioritised replay, a target network and epsilon-greedy
exploration; and double Q-learning, by which Tianshou computes its targets. Actions that the task does not allow are
neither chosen nor part of the targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from tianshou.algorithm.modelfree.c51 import C51Policy
from tianshou.algorithm.modelfree.rainbow import RainbowDQN
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Batch
from tianshou.utils.torch_utils import policy_within_training_step
from torch import Tensor, nn

from worldmodels.core.errors import UserError
from worldmodels.core.files import load_tensors, save_tensors
from worldmodels.data.collect import Recorder
from worldmodels.data.rainbow.replay import FrameReplay, Frames, RecordedFrames, batch_of_frames, remembered
from worldmodels.tasks import Task
from worldmodels.tasks.base import Observations

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class RainbowSettings:
    """Hyperparameters of the published bin packing project. A step is one step of one environment."""

    hidden: int = 512
    """Units of each of the two hidden layers."""
    atoms: int = 51
    """Atoms of a value distribution (C51)."""
    highest: float = 255.0
    """Value of the last atom, in units of reward; the first atom is minus that."""
    gamma: float = 0.99
    """Discount per step."""
    lr: float = 1e-3
    """Adam's learning rate."""
    replay: int = 50_000
    """Transitions that the replay buffer holds."""
    first: int = 500
    """Steps before learning begins."""
    every: int = 4
    """Steps per update."""
    batch: int = 32
    """Transitions per update."""
    target_every: int = 2000
    """Steps between updates of the target network."""
    chance: float = 0.01
    """Final epsilon, the share of random actions."""
    chance_steps: int = 250_000
    """Steps over which epsilon falls from 1 to its final value; at most an eighth of all steps, as was published."""


SETTINGS = RainbowSettings()


class ActionValues(nn.Module):
    """Frames (B, 64, 64, 3) uint8 -> the value distribution of each action, probabilities (B, actions, atoms)."""

    def __init__(self, actions: int, settings: RainbowSettings) -> None:
        super().__init__()
        self._actions, width = actions, settings.hidden
        self.layers = nn.Sequential(
            nn.Linear(64 * 64 * 3, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, actions * settings.atoms),
        )

    def forward(self, obs: np.ndarray, state: Any = None, info: Any = None) -> tuple[Tensor, Any]:
        """The probabilities, and ``state`` unchanged, as Tianshou requires."""
        pixels = torch.from_numpy(obs).to(next(self.parameters()).device).flatten(1).float() / 255
        return self.layers(pixels).unflatten(1, (self._actions, -1)).softmax(dim=-1), state


class Learner:
    """Policy and observer of one shard.

    key: numbers that its random streams depend on; steps: the most steps that all shards can have together; before: the
    shards that were played earlier; state: the file that :meth:`save` wrote after the last of these. Raises
    :class:`UserError` for a state of something else.
    """

    def __init__(
        self,
        task: Task,
        recorder: Recorder,
        seeds: Sequence[int],
        key: Sequence[int],
        device: torch.device,
        steps: int,
        before: Sequence[Path] = (),
        state: Path | None = None,
    ) -> None:
        space = task.action_space
        assert isinstance(space, spaces.Discrete)
        self._task, self._recorder, self._settings = task, recorder, SETTINGS
        self._falls_over = max(1, min(SETTINGS.chance_steps, steps // 8))
        self._random, self._made = task.random_policy(seeds), 0
        self._streams = [np.random.default_rng([seed, 2]) for seed in seeds]
        self._algorithm = _algorithm(space, key, device)
        parts, old = remembered(before, SETTINGS.replay, task) if before else ([], None)
        frames = Frames([*parts, RecordedFrames(recorder)])
        self._start, self._stride = frames.start(len(parts)), recorder.steps + 1
        self._replay = FrameReplay(SETTINGS.replay, task, frames, np.random.default_rng(key))
        if old is not None and state is not None:
            tensors, meta = load_tensors(state)
            try:
                self._restore(tensors, meta)
                self._replay.refill(old, tensors["priorities"].numpy(), meta["bounds"])
            except (KeyError, RuntimeError, TypeError, ValueError):
                raise UserError(f"{state} does not belong to this run; delete it and run the command again") from None

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        """Epsilon-greedy actions (n,): random ones, or those with the highest mean value."""
        with torch.no_grad():
            batch = Batch(obs=batch_of_frames(self._task, observations.frames), info=None)
            best = self._algorithm.policy(batch).act
        random = self._random.act(observations, rows)
        draws = np.array([self._streams[row].random() for row in rows.tolist()])
        return np.where(draws < self._chance(), random, best)

    def _chance(self) -> float:
        share = min(1.0, max(0, self._made - self._settings.first) / self._falls_over)
        return 1 + share * (self._settings.chance - 1)

    def start(self, observations: Observations) -> None:
        """Record the reset frames."""
        self._recorder.start(observations)

    def step(
        self, rows: np.ndarray, actions: np.ndarray, rewards: np.ndarray, ended: np.ndarray, after: Observations
    ) -> None:
        """Record the transitions, add them to the replay buffer, and learn."""
        self._recorder.step(rows, actions, rewards, ended, after)
        frames = self._start + rows * self._stride + self._recorder.lengths[rows] - 1
        for transition in zip(frames.tolist(), actions.tolist(), rewards.tolist(), ended.tolist(), strict=True):
            self._replay.keep(*transition)
        settings, before = self._settings, max(self._made, self._settings.first)
        self._made += len(rows)
        with policy_within_training_step(self._algorithm.policy):
            for _ in range(self._made // settings.every - before // settings.every):
                self._algorithm.update(self._replay, settings.batch)

    def save(self, path: Path) -> None:
        """Save weights, Adam's moments and replay priorities. Raises :class:`UserError` if weights are not finite."""
        weights = self._weights()
        if not all(value.isfinite().all() for value in weights.values()):
            raise UserError("rainbow learnt weights that are not finite; choose another --policy or another --seed")
        tensors = {f"weights/{name}": value for name, value in weights.items()}
        for name, parameter in self._algorithm.policy.model.named_parameters():
            moments = self._optimizer.state.get(parameter, {})
            tensors |= {f"adam/{part}/{name}": value for part, value in moments.items()}
        tensors["priorities"] = torch.from_numpy(self._replay.priorities())
        meta = {"made": self._made, "updates": self._algorithm._iter, "bounds": self._replay.bounds}
        save_tensors(path, tensors, meta)

    def _restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        for name, value in self._weights().items():
            value.copy_(tensors[f"weights/{name}"])
        self._made, self._algorithm._iter = int(meta["made"]), int(meta["updates"])
        if not self._algorithm._iter:
            return
        for name, parameter in self._algorithm.policy.model.named_parameters():
            self._optimizer.state[parameter] = {
                part: tensors[f"adam/{part}/{name}"].to("cpu" if part == "step" else parameter.device)
                for part in _MOMENTS
            }

    def _weights(self) -> dict[str, Tensor]:
        model, target = self._algorithm.policy.model.state_dict(), self._algorithm.model_old.state_dict()
        return {f"{kind}/{name}": part[name] for kind, part in (("model", model), ("target", target)) for name in part}

    @property
    def _optimizer(self) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = self._algorithm.optim._optim
        return optimizer


def _algorithm(space: spaces.Discrete, key: Sequence[int], device: torch.device) -> Any:
    """Tianshou's Rainbow with new weights and without noisy layers: exploration is up to :meth:`Learner.act`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence(list(key)).generate_state(1)[0]))
        model = ActionValues(int(space.n), SETTINGS)
    policy = C51Policy(
        model=model,
        action_space=space,
        num_atoms=SETTINGS.atoms,
        v_min=-SETTINGS.highest,
        v_max=SETTINGS.highest,
    ).to(device)
    return RainbowDQN(
        policy=policy,
        optim=AdamOptimizerFactory(lr=SETTINGS.lr),
        gamma=SETTINGS.gamma,
        target_update_freq=SETTINGS.target_every // SETTINGS.every,
    )
