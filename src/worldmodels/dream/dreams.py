"""N dreams advanced together: M as a world, in tensors that stay on their device."""

from collections.abc import Sequence

import torch
from torch import Tensor

from worldmodels.agent import Agent
from worldmodels.device import fast_bfloat16
from worldmodels.dream.noise import Streams
from worldmodels.errors import UserError
from worldmodels.memory.packed import PackedMemory

ENDS = ("sample", "threshold")
"""How a dream ends: as often as ends come, or where the end head, to which they count more, says so (paper's code)."""


class Dreams:
    """Dreams of one agent: z from M's mixture, reward and end from its heads or the task.

    temperature: above 1 the dream is less certain than M is, below 1 more (paper, section 4.2). dtype: of the products
    (None: the fastest of the device). Raises :class:`UserError` for an agent that cannot dream.
    """

    def __init__(
        self, agent: Agent, temperature: float = 1.0, ends: str = "sample", dtype: torch.dtype | None = None
    ) -> None:
        check_dream(agent, temperature, ends)
        assert agent.starts is not None
        self.agent, self.temperature, self._ends = agent, float(temperature), ends
        fastest = torch.bfloat16 if fast_bfloat16(agent.device) else torch.float32
        self._memory = PackedMemory(agent.memory, dtype or fastest)
        self._starts = agent.starts.float().to(agent.device)
        states = agent.start_states
        if states is None:
            states = torch.zeros(len(agent.starts), 2, agent.memory.hidden_size)
        self._states = states.float().to(agent.device)
        self._alive_reward = agent.task.alive_reward
        self.z = self.h = self.c = torch.empty(0)

    def __len__(self) -> int:
        return len(self.z)

    @torch.inference_mode()
    def reset(self, seeds: Sequence[int], shared: bool = False) -> None:
        """Begin one dream per seed: a recorded frame, drawn anew from its mu and logvar, and M's memory at that moment.

        Worlds dream from first frames with an empty memory (paper), unless ``Task.dream_begins`` says otherwise.

        shared: rows with the same seed share their random numbers; such rows cannot be restarted one by one.
        """
        self._streams = Streams(seeds, self._memory.latent_size, self.agent.device, shared)
        self.z, self.h, self.c = self._first(*self._streams.start(len(self._starts)))

    @torch.inference_mode()
    def restart(self, rows: Tensor, seeds: Sequence[int]) -> None:
        """Begin new dreams in the rows ``rows`` (n,)."""
        self.z, self.h, self.c = self.z.clone(), self.h.clone(), self.c.clone()
        begun = self._first(*self._streams.replace(rows.tolist(), seeds, len(self._starts)))
        self.z[rows], self.h[rows], self.c[rows] = begun

    def _first(self, which: Tensor, normal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self._starts[which].unbind(1)
        h, c = self._states[which].unbind(1)
        return torch.addcmul(mu, torch.exp(logvar / 2), normal), h.contiguous(), c.contiguous()

    @torch.inference_mode()
    def step(self, actions: Tensor, frozen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Act with (N, A) numbers as M sees them; reward (N,) float32 and whether the dream has ended (N,) bool.

        Rows that are ``frozen`` (N,) bool stay where they are; what is returned for them means nothing.
        """
        before = self.z, self.h, self.c
        self.h, self.c = self._memory.step(self.z, actions, (self.h, self.c))
        uniform, normal, chance = self._streams.next()
        drawn = self._memory.draw(self.h, uniform, normal, self.temperature)
        self.z = drawn.z
        if frozen is not None and bool(frozen.any()):
            still = frozen.unsqueeze(1)
            old = (torch.where(still, a, b) for a, b in zip(before, (self.z, self.h, self.c), strict=True))
            self.z, self.h, self.c = old
        if drawn.end_logit is None:
            ended = torch.zeros(len(self.z), dtype=torch.bool, device=self.z.device)
        elif self._ends == "sample":
            ended = chance < torch.sigmoid(self.agent.memory.end_odds(drawn.end_logit))
        else:
            ended = drawn.end_logit > 0
        if self._alive_reward is not None:
            return torch.full_like(self.z[:, 0], self._alive_reward), ended
        assert drawn.reward is not None
        return drawn.reward, ended

    def keep(self, rows: Tensor) -> None:
        """Go on with the rows ``rows`` (n,) only."""
        self.z, self.h, self.c = self.z[rows], self.h[rows], self.c[rows]
        self._streams.keep(rows)

    @torch.inference_mode()
    def allowed(self) -> Tensor | None:
        """Controls that may be chosen, (N, C) bool and at least one in each row; None where all always may."""
        if self.agent.memory.allowed_head is None:
            return None
        logits = self.agent.memory.allowed_logits(self.z)
        return (logits > 0) | (logits >= logits.amax(dim=1, keepdim=True))

    def only_allowed(self, control: Tensor) -> Tensor:
        """Controls (N, C), minus infinity where they may not be chosen."""
        allowed = self.allowed()
        return control if allowed is None else control.masked_fill(~allowed, -torch.inf)

    def features(self) -> Tensor:
        """What C sees, (N, F)."""
        known = {"z": self.z, "h": self.h, "c": self.c}
        return torch.cat([known[name] for name in self.agent.features], dim=1)


def check_dream(agent: Agent, temperature: float, ends: str) -> None:
    """Refuse what cannot be dreamt, in one line."""
    task = agent.task
    if not temperature > 0 or temperature == float("inf"):
        raise UserError(f"expected a temperature above 0, got {temperature:g}; 1 is what M believes")
    if ends not in ENDS:
        raise UserError(f"unknown way to end a dream {ends!r}; choose from {', '.join(ENDS)}")
    if task.masked and agent.memory.allowed_head is None:
        raise UserError(
            f"dreams of {task.name} need an M that tells which actions are allowed, and this agent's does not"
        )
    if agent.starts is None:
        raise UserError("this agent holds no recorded frames to begin dreams with; train it with this version")
    if task.alive_reward is None and agent.memory.reward_head is None:
        raise UserError(f"dreams of {task.name} need an M that predicts the reward, and this agent's does not")
    if task.predicts_end and agent.memory.end_head is None:
        raise UserError(f"dreams of {task.name} need an M that predicts the end, and this agent's does not")
