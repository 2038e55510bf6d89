"""N dreams advanced together: M as a world, in tensors that stay on their device."""

from collections.abc import Sequence

import torch
from torch import Tensor

from worldmodels.agent import Agent
from worldmodels.device import fast_bfloat16
from worldmodels.dream.counted import CountedStreams
from worldmodels.dream.noise import Noise, Numbers, Streams
from worldmodels.errors import UserError
from worldmodels.memory.mdnrnn import State
from worldmodels.memory.packed import PackedMemory

ENDS = ("sample", "threshold")
"""How a dream ends: as often as ends come, or where the end head, to which they count more, says so (paper's code)."""

World = tuple[Tensor, Tensor, Tensor]
"""Where N dreams are: z (N, Z), h (N, H), c (N, H), all float32; of two Ms, h and c are (N, 2H), the agent's first."""


class Dreams:
    """Dreams of one agent: z from M's mixture, reward and end from its heads or the task.

    temperature: above 1 the dream is less certain than M is, below 1 more (paper, section 4.2). dtype: of the products
    (None: the fastest of the device). streams: where random numbers come from (None: numpy for a CPU, computed on the
    device elsewhere). dreamer: an agent with the same V and the same starts whose M dreams (None: the agent's own). The
    agent's M then only follows, as it does in the real world: C sees what its M believes instead of all that the dream
    is made of. Raises :class:`UserError` for an agent that cannot dream.
    """

    def __init__(
        self,
        agent: Agent,
        temperature: float = 1.0,
        ends: str = "sample",
        dtype: torch.dtype | None = None,
        streams: type[Streams] | type[CountedStreams] | None = None,
        dreamer: Agent | None = None,
    ) -> None:
        followers = [agent] if dreamer is None else [agent, dreamer]
        for one in followers:
            check_dream(one, temperature, ends)
        assert agent.starts is not None
        self.agent, self.temperature, self._ends = agent, float(temperature), ends
        fastest = torch.bfloat16 if fast_bfloat16(agent.device) else torch.float32
        self._memories = [PackedMemory(one.memory, dtype or fastest) for one in followers]
        self._end_odds = followers[-1].memory.end_odds
        self._starts = agent.starts.float().to(agent.device)
        self._states = torch.cat([_start_states(one) for one in followers], dim=2).to(agent.device)
        self._alive_reward = agent.task.alive_reward
        self.noise = streams or (Streams if agent.device.type == "cpu" else CountedStreams)
        self.z = self.h = self.c = torch.empty(0)

    def __len__(self) -> int:
        return len(self.z)

    @torch.inference_mode()
    def reset(self, seeds: Sequence[int]) -> None:
        """Begin one dream per seed, each with random numbers of its own."""
        self._streams = self.streams(seeds)
        self.z, self.h, self.c = self.begin(self._streams)

    def streams(self, seeds: Sequence[int], shared: bool = False) -> Noise:
        """Random numbers for dreams with these seeds; ``shared``: drawn once for all rows that have the same seed."""
        return self.noise(seeds, self._memories[0].latent_size, self.agent.device, shared)

    def begin(self, streams: Noise) -> World:
        """A recorded frame per row, drawn anew from its mu and logvar, and M's memory at that moment.

        Worlds dream from first frames with an empty memory (paper), unless ``Task.dream_begins`` says otherwise.
        """
        return self._first(*streams.start(len(self._starts)))

    @torch.inference_mode()
    def restart(self, rows: Tensor, seeds: Sequence[int]) -> None:
        """Begin new dreams in the rows ``rows`` (n,)."""
        self.z, self.h, self.c = self.z.clone(), self.h.clone(), self.c.clone()
        begun = self._first(*self._streams.replace(rows.tolist(), seeds, len(self._starts)))
        self.z[rows], self.h[rows], self.c[rows] = begun

    def _first(self, which: Tensor, normal: Tensor) -> World:
        mu, logvar = self._starts[which].unbind(1)
        h, c = self._states[which].unbind(1)
        return torch.addcmul(mu, torch.exp(logvar / 2), normal), h.contiguous(), c.contiguous()

    @torch.inference_mode()
    def step(self, actions: Tensor, frozen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Act with (N, A) numbers as M sees them; reward (N,) float32 and whether the dream has ended (N,) bool.

        Rows that are ``frozen`` (N,) bool stay where they are; what is returned for them means nothing.
        """
        before = self.z, self.h, self.c
        world, reward, ended = self.advance(before, actions, self._streams.next())
        if frozen is not None and bool(frozen.any()):
            still = frozen.unsqueeze(1)
            self.z, self.h, self.c = (torch.where(still, a, b) for a, b in zip(before, world, strict=True))
        else:
            self.z, self.h, self.c = world
        return reward, ended

    def advance(self, world: World, actions: Tensor, numbers: Numbers) -> tuple[World, Tensor, Tensor]:
        """Where dreams are after acting, and what :meth:`step` returns: a function of its arguments alone.

        It waits for nothing and copies nothing from another device, so that it can be recorded as a CUDA graph.
        """
        uniform, normal, chance = numbers
        h, c = self._followed(world, actions)
        dreaming = self._memories[-1]
        drawn = dreaming.draw(h[:, -dreaming.hidden_size :], uniform, normal, self.temperature)
        if drawn.end_logit is None:
            ended = torch.zeros(len(h), dtype=torch.bool, device=h.device)
        elif self._ends == "sample":
            ended = chance < torch.sigmoid(self._end_odds(drawn.end_logit))
        else:
            ended = drawn.end_logit > 0
        if self._alive_reward is not None:
            return (drawn.z, h, c), torch.full_like(drawn.z[:, 0], self._alive_reward), ended
        assert drawn.reward is not None
        return (drawn.z, h, c), drawn.reward, ended

    def _followed(self, world: World, actions: Tensor) -> State:
        z, h, c = world
        if len(self._memories) == 1:
            return self._memories[0].step(z, actions, (h, c))
        halves = zip(self._memories, h.chunk(2, dim=1), c.chunk(2, dim=1), strict=True)
        after = [memory.step(z, actions, (h, c)) for memory, h, c in halves]
        return torch.cat([one[0] for one in after], dim=1), torch.cat([one[1] for one in after], dim=1)

    @torch.inference_mode()
    def allowed(self, z: Tensor) -> Tensor | None:
        """Controls that may be chosen at z (N, Z), (N, C) bool, one at least in each row; None where all always may."""
        if self.agent.memory.allowed_head is None:
            return None
        logits = self.agent.memory.allowed_logits(z)
        return (logits > 0) | (logits >= logits.amax(dim=1, keepdim=True))

    def only_allowed(self, control: Tensor, z: Tensor) -> Tensor:
        """Controls (N, C), minus infinity where they may not be chosen at z (N, Z)."""
        allowed = self.allowed(z)
        return control if allowed is None else control.masked_fill(~allowed, -torch.inf)

    def features(self) -> Tensor:
        """What C sees now, (N, F)."""
        return self.seen((self.z, self.h, self.c))

    def seen(self, world: World) -> Tensor:
        """What C sees of dreams, (N, F)."""
        own = self._memories[0].hidden_size
        known = {"z": world[0], "h": world[1][:, :own], "c": world[2][:, :own]}
        return torch.cat([world[0][:, :0], *(known[name] for name in self.agent.features)], dim=1)


def _start_states(agent: Agent) -> Tensor:
    assert agent.starts is not None
    states = agent.start_states
    return torch.zeros(len(agent.starts), 2, agent.memory.hidden_size) if states is None else states.float().cpu()


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
