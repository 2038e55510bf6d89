"""N dreams of M, advanced together in tensors that stay on their device."""

from collections.abc import Sequence

import torch
from torch import Tensor

from worldmodels.agent import Agent
from worldmodels.controller.hidden import Controllers, make_controllers
from worldmodels.core.device import fast_bfloat16
from worldmodels.core.errors import UserError
from worldmodels.dream.course import Course, Courses
from worldmodels.dream.fast.counter_based import CounterBasedStreams
from worldmodels.dream.fast.streams import Noise, Numbers, NumpyStreams
from worldmodels.memory.mdnrnn import State
from worldmodels.memory.packed import PackedMemory

TERMINATIONS = ("sample", "threshold", "health")
"""How a dream ends: "sample" draws an end from its predicted probability; with "threshold" the dream ends where the
output of the end head, in whose loss ends have a higher weight, exceeds 0.5 (as in the authors' code); with "health" a
dream has a health, which hits take, and ends without any."""

DreamState = tuple[Tensor, ...]
"""The state of N dreams: z (N, Z), h (N, H), c (N, H), and for dreams that have one their :class:`Course`; all float32.

With a dream model, h and c are (N, 2H): those of the agent's own M, then those of the dream model.
"""


class Dreams:
    """Dreams of one agent: z is sampled from M's mixture; reward and end come from M's heads or from the task.

    temperature: above 1, dreams are more uncertain than M's predictions, below 1 less (paper, section 4.2);
    termination: one of :data:`TERMINATIONS`; dtype: of matrix products (None: the fastest on the device); streams: the
    source of random numbers (None: NumPy on a CPU, counter-based elsewhere); dream_model: an agent with the same V and
    the same starts whose M dreams (None: the agent's own M); dropout: share of z and h that the M that dreams does not
    see, by a mask that each dream draws at its start and keeps. With a dream model, the agent's own M only tracks its
    hidden state, as in the real world, and C sees that state and not the dream model's. What C sees is never dropped.
    Raises :class:`UserError` for an agent that cannot dream.
    """

    def __init__(
        self,
        agent: Agent,
        temperature: float = 1.0,
        termination: str = "sample",
        dtype: torch.dtype | None = None,
        streams: type[NumpyStreams] | type[CounterBasedStreams] | None = None,
        dream_model: Agent | None = None,
        dropout: float = 0.0,
    ) -> None:
        agents = [agent] if dream_model is None else [agent, dream_model]
        for member in agents:
            check_dream(member, temperature, termination)
        assert agent.starts is not None
        # Not the agent itself, because processes to which dreams are sent would be sent V as well.
        self.task, self.device, self.temperature = agent.task, agent.device, float(temperature)
        self._inputs, self._layout, self._termination = agent.inputs, agent.layout, termination
        self._mask_logits = agent.memory.mask_logits if agent.memory.mask_head is not None else None
        fastest = torch.bfloat16 if fast_bfloat16(agent.device) else torch.float32
        self._memories = [PackedMemory(member.memory, dtype or fastest) for member in agents]
        self._starts = agent.starts.to(agent.device)
        self._states = torch.cat([_start_states(member) for member in agents], dim=2).to(agent.device)
        self._alive_reward = agent.task.alive_reward
        self._courses = Courses(agents, dropout, termination == "health")
        self._course: tuple[Tensor, ...] = ()
        self.noise = streams or (NumpyStreams if agent.device.type == "cpu" else CounterBasedStreams)
        self.z = self.h = self.c = torch.empty(0)

    def __len__(self) -> int:
        return len(self.z)

    @torch.inference_mode()
    def reset(self, seeds: Sequence[int]) -> None:
        """Start one dream per seed, each with its own random stream."""
        self._streams = self.streams(seeds)
        self._state = self.start(self._streams)

    @property
    def _state(self) -> DreamState:
        return self.z, self.h, self.c, *self._course

    @_state.setter
    def _state(self, state: DreamState) -> None:
        self.z, self.h, self.c, *course = state
        self._course = tuple(course)

    def streams(self, seeds: Sequence[int], shared: bool = False) -> Noise:
        """Random streams for dreams with these seeds; ``shared``: rows with the same seed share one stream."""
        return self.noise(seeds, self._memories[0].latent_size, self.device, shared)

    def controllers(self, parameters: Tensor) -> Controllers:
        """Controllers with the flat parameters (N, P), for the inputs of C in these dreams."""
        return make_controllers(parameters.float().to(self.device), self._layout)

    def start(self, streams: Noise) -> DreamState:
        """The initial states: z of a recorded frame per row, sampled from its mu and logvar, and M's state there.

        Dreams start at first frames with zero states (as in the paper), unless the setting start_steps says otherwise.
        """
        which, normal = streams.start(len(self._starts))
        return *self._first(which, normal), *self._courses.begin(streams, which)

    @torch.inference_mode()
    def restart(self, rows: Tensor, seeds: Sequence[int]) -> None:
        """Start new dreams in the rows ``rows`` (n,), with these seeds."""
        which, normal = self._streams.replace(rows.tolist(), seeds, len(self._starts))
        started = *self._first(which, normal), *self._courses.begin(self._streams, which, rows.tolist())
        state = tuple(part.clone() for part in self._state)
        for part, fresh in zip(state, started, strict=True):
            part[rows] = fresh
        self._state = state

    def move(self, z: Tensor, h: Tensor, c: Tensor, steps: Tensor) -> None:
        """Put the dreams elsewhere: at z (N, Z), with the state h and c of M there, ``steps`` (N, 1) after the start.

        What else they have of their own, such as a dropout mask, they keep.
        """
        self.z, self.h, self.c = z, h, c
        course = Course(*self._course) if self._course else None
        if course is not None and course.steps.shape[1]:
            self._course = course._replace(steps=steps.to(z.device))

    def _first(self, which: Tensor, normal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self._starts[which].float().unbind(1)
        h, c = self._states[which].float().unbind(1)
        return torch.addcmul(mu, torch.exp(logvar / 2), normal), h.contiguous(), c.contiguous()

    @torch.inference_mode()
    def step(self, actions: Tensor, frozen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Advance by ``actions`` (N, A), as M sees them; returns rewards (N,) float32 and which rows ended, (N,) bool.

        Rows that are ``frozen`` (N,) bool keep their states; what is returned for them has no meaning.
        """
        before = self._state
        state, reward, ended = self.advance(before, actions, self._streams.next())
        if frozen is not None and bool(frozen.any()):
            still = frozen.unsqueeze(1)
            state = tuple(torch.where(still, old, new) for old, new in zip(before, state, strict=True))
        self._state = state
        return reward, ended

    def advance(self, state: DreamState, actions: Tensor, numbers: Numbers) -> tuple[DreamState, Tensor, Tensor]:
        """The next state, rewards (N,) and which rows ended, (N,) bool: a function of the arguments alone.

        It neither synchronises nor copies from another device, so that it can be recorded as a CUDA graph.
        """
        uniform, normal, chance = numbers
        course = Course(*state[3:]) if len(state) > 3 else None
        h, c = self._followed(state, actions, course)
        dreaming = self._memories[-1]
        drawn = dreaming.draw(h[:, -dreaming.hidden_size :], uniform, normal, self.temperature)
        if course is not None:
            hit_logit = drawn.hit_logit
            course = self._courses.after(
                course, None if hit_logit is None else dreaming.unweighted_hit_logit(hit_logit), chance
            )
        if self._termination == "health":
            assert course is not None
            ended = course.health.squeeze(1) <= 0
        elif drawn.end_logit is None:
            ended = torch.zeros(len(h), dtype=torch.bool, device=h.device)
        elif self._termination == "sample":
            ended = chance < torch.sigmoid(dreaming.unweighted_end_logit(drawn.end_logit))
        else:
            ended = drawn.end_logit > 0
        after = drawn.z, h, c, *(() if course is None else course)
        if self._alive_reward is not None:
            return after, torch.full_like(drawn.z[:, 0], self._alive_reward), ended
        assert drawn.reward is not None
        return after, drawn.reward, ended

    def _followed(self, state: DreamState, actions: Tensor, course: Course | None) -> State:
        z, h, c = state[:3]
        mask = None if course is None or not course.mask.shape[1] else course.mask
        steps = None if course is None else course.steps
        if len(self._memories) == 1:
            return self._memories[0].step(z, actions, (h, c), mask, steps)
        own, dreaming = self._memories
        (own_h, dreaming_h), (own_c, dreaming_c) = h.chunk(2, dim=1), c.chunk(2, dim=1)
        own_h, own_c = own.step(z, actions, (own_h, own_c), None, steps)
        dreaming_h, dreaming_c = dreaming.step(z, actions, (dreaming_h, dreaming_c), mask, steps)
        return torch.cat([own_h, dreaming_h], dim=1), torch.cat([own_c, dreaming_c], dim=1)

    @torch.inference_mode()
    def action_mask(self, z: Tensor) -> Tensor | None:
        """The action mask (N, C) bool that M predicts at z (N, Z), with at least one valid control in each row.

        None for a task without action masks.
        """
        if self._mask_logits is None:
            return None
        logits = self._mask_logits(z)
        return (logits > 0) | (logits >= logits.amax(dim=1, keepdim=True))

    def masked(self, control: Tensor, z: Tensor) -> Tensor:
        """``control`` (N, C), with minus infinity where the action mask at z (N, Z) forbids it."""
        mask = self.action_mask(z)
        return control if mask is None else control.masked_fill(~mask, -torch.inf)

    def policy_inputs(self) -> Tensor:
        """The inputs (N, F) of C in the current states."""
        return self.inputs((self.z, self.h, self.c))

    def inputs(self, state: DreamState) -> Tensor:
        """The inputs (N, F) of C in the given state: z, and h and c of the agent's own M."""
        own = self._memories[0].hidden_size
        z, h, c = state[:3]
        return self._inputs(z, h[:, :own], c[:, :own])


def _start_states(agent: Agent) -> Tensor:
    assert agent.starts is not None
    states = agent.start_states
    empty = torch.zeros(len(agent.starts), 2, agent.memory.hidden_size, dtype=torch.float16)
    return empty if states is None else states.cpu()


def check_dream(agent: Agent, temperature: float, termination: str) -> None:
    """Raise :class:`UserError` if the agent cannot dream with these settings."""
    task = agent.task
    if not temperature > 0 or temperature == float("inf"):
        raise UserError(f"expected a temperature above 0, got {temperature:g}; 1 leaves M's predictions as they are")
    if termination not in TERMINATIONS:
        raise UserError(f"unknown termination {termination!r}; choose from {', '.join(TERMINATIONS)}")
    if task.masked and agent.memory.mask_head is None:
        raise UserError(f"dreams of {task.name} need an M that predicts the action mask, and this agent's does not")
    if agent.starts is None:
        raise UserError("this agent holds no recorded frames to start dreams from; train it with this version")
    if task.alive_reward is None and agent.memory.reward_head is None:
        raise UserError(f"dreams of {task.name} need an M that predicts the reward, and this agent's does not")
    if termination == "health" and (agent.memory.hit_head is None or agent.moments.drops is None):
        raise UserError(
            "dreams that end by their health need an M that predicts hits, and recorded hits; this agent lacks them: "
            'choose the termination "sample" or "threshold"'
        )
    if task.predicts_end and agent.memory.end_head is None:
        raise UserError(f"dreams of {task.name} need an M that predicts the end, and this agent's does not")
