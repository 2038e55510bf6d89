"""An agent: V + M + C with its task, acting on batches of frames; saved as safetensors with JSON metadata."""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodels.agent_files import AGENT_FILE as AGENT_FILE
from worldmodels.agent_files import agent_path
from worldmodels.controller.hidden import Controllers, make_controllers
from worldmodels.controller.inputs import PolicyInputs
from worldmodels.controller.layout import Layout
from worldmodels.core.device import choose_device, torch_threads
from worldmodels.core.errors import UserError
from worldmodels.core.files import load_tensors, read_json, save_tensors
from worldmodels.core.read_only import ReadOnly
from worldmodels.core.storage.hub import ORIGIN_FILE
from worldmodels.core.weights import check_finite, fill
from worldmodels.memory.mdnrnn import MDNRNN, State
from worldmodels.memory.mixture import expectation
from worldmodels.memory.moments import Moments
from worldmodels.tasks import Task, get_task
from worldmodels.tasks.base import Observations
from worldmodels.vision.base import VISIONS, Vision, decode_frames, encode_frames, make_vision
from worldmodels.vision.samples import ActingSamples

_FORMAT = 2
_FRAME = (64, 64, 3)
_FEW_ROWS = 4
"""Maximum number of environments in which an agent acts with one thread, because more would wait for each other."""
_LARGEST_INPUT = 1e6
"""Larger than any input of C."""


class Agent(ReadOnly):
    """V, M and C of one task.

    ``controller`` holds the flat parameters of C, (P,) float32; ``inputs`` names the inputs of C, any of z, h and c
    (None: the task's default; empty: C has only its biases); ``hidden`` is the number of hidden units of C, 0 for a
    linear C. ``layout`` says what each of the parameters is. ``info`` holds JSON-serialisable notes on the agent's
    origin. ``starts`` (S, 2, Z) float16 holds mu and logvar of the recorded frames at which dreams start, and
    ``start_states`` (S, 2, H) float16 h and c of M there (None: zeros); ``moments`` says more of these moments.
    ``samples_z``: whether it acts on samples of z, as in dreams and in the authors' code, and not on the mean.
    """

    def __init__(
        self,
        task: Task,
        vision: Vision,
        memory: MDNRNN,
        controller: Tensor,
        inputs: Sequence[str] | None = None,
        info: dict[str, Any] | None = None,
        starts: Tensor | None = None,
        start_states: Tensor | None = None,
        hidden: int = 0,
        samples_z: bool = False,
        moments: Moments | None = None,
    ) -> None:
        # V's layers need their weights in this layout and would copy them at every call, a millisecond each time.
        vision = vision.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.task, self.vision, self.memory = task, vision, memory.eval()
        names = task.inputs if inputs is None else inputs
        self.inputs = PolicyInputs(names, vision.latent_size, memory.hidden_size)
        self.layout = Layout(self.inputs.size, task.control_size, hidden)
        self.controller = controller.detach().float().cpu()
        self.info, self.starts, self.start_states = info or {}, starts, start_states
        self.moments = moments or Moments()
        self.samples_z = samples_z
        self.device = next(vision.parameters()).device
        self.controllers(self.controller[None])

    def __repr__(self) -> str:
        hidden = f"hidden={self.layout.hidden}, " if self.layout.hidden else ""
        return (
            f"Agent(task={self.task.name!r}, vision={self.vision.name!r}, latent_size={self.vision.latent_size}, "
            f"hidden_size={self.memory.hidden_size}, inputs={self.inputs.names}, {hidden}"
            f"parameters={len(self.controller)})"
        )

    def controllers(self, parameters: Tensor) -> Controllers:
        """Controllers with the flat parameters (N, P), for the inputs of this agent."""
        return make_controllers(parameters.float().to(self.device), self.layout)

    def policy(
        self, num_envs: int, controllers: Tensor | None = None, seeds: Sequence[int] | None = None
    ) -> "AgentPolicy":
        """A policy for ``num_envs`` environments; ``controllers`` (num_envs, P) gives each row its own parameters.

        There may be more controllers than environments: those of later episodes, see :meth:`AgentPolicy.begin`. The
        samples of an agent that acts on samples of z follow from ``seeds``, one per episode (None: 0, 1, 2 ...).
        """
        if num_envs < 1:
            raise UserError(f"expected at least 1 environment, got {num_envs}")
        return AgentPolicy(self, num_envs, self.controller[None] if controllers is None else controllers, seeds)

    def digest(self) -> str:
        """SHA-256 of the task, what is known of its world, inputs of M and C, all weights, and where dreams start."""
        hidden = [f"hidden {self.layout.hidden}"] if self.layout.hidden else []
        total = hashlib.sha256(" ".join([self.task.name, " ".join(self.inputs.names), *hidden]).encode())
        if self.task.facts:
            total.update(json.dumps(dict(self.task.facts), sort_keys=True).encode())
        starts = {"starts": self.starts, "start_states": self.start_states, **self.moments.tensors()}
        own = {"controller": self.controller, **{name: value for name, value in starts.items() if value is not None}}
        for part in (self.vision.state_dict(), self.memory.state_dict(), own):
            for name, value in sorted(part.items()):
                total.update(name.encode())
                total.update(value.detach().float().cpu().contiguous().numpy().tobytes())
        if self.samples_z:
            total.update(b"samples_z")
        if self.memory.clock:
            total.update(f"clock {self.memory.clock}".encode())
        return total.hexdigest()

    def encode(self, frames: np.ndarray) -> tuple[Tensor, Tensor]:
        """mu and logvar (N, Z), float32, of frames (N, 64, 64, 3) uint8 from 0 to 255.

        Frames are made from observations by ``agent.task.frames(observations)``. Raises :class:`UserError` for arrays
        of another shape or type.
        """
        if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.shape[1:] != _FRAME:
            raise UserError(
                f"expected frames of shape (N, 64, 64, 3) and type uint8, from 0 to 255, got {_described(frames)}; "
                "agent.task.frames(observations) makes them from observations"
            )
        return encode_frames(self.vision, frames)

    def decode(self, z: Tensor | np.ndarray) -> np.ndarray:
        """The frames (N, 64, 64, 3) uint8 that V decodes from z (N, Z), a tensor or an array of finite numbers.

        Raises :class:`UserError` for a z of another shape, or one that holds NaN or infinity.
        """
        size = self.vision.latent_size
        if isinstance(z, np.ndarray) and z.dtype.kind in "fiu":
            z = torch.from_numpy(z.astype(np.float32))
        if not isinstance(z, Tensor) or z.ndim != 2 or z.shape[1] != size or z.dtype == torch.bool or z.is_complex():
            raise UserError(f"expected z as numbers of shape (N, {size}), got {_described(z)}")
        if not z.isfinite().all():
            raise UserError(f"expected finite numbers as z, got NaN or infinity in z of shape {tuple(z.shape)}")
        return decode_frames(self.vision, z.float())

    def save(self, directory: Path | str, dtype: torch.dtype = torch.float16) -> None:
        """Write ``agent.safetensors`` into ``directory``, with V and M in ``dtype``: float16 makes a few MB."""
        tensors = {f"vision.{name}": value.to(dtype) for name, value in self.vision.state_dict().items()}
        tensors |= {f"memory.{name}": value.to(dtype) for name, value in self.memory.state_dict().items()}
        tensors["controller"] = self.controller
        if self.starts is not None:
            tensors["starts"] = self.starts.half()
        if self.start_states is not None:
            tensors["start_states"] = self.start_states.half()
        tensors |= self.moments.tensors()
        memory = self.memory
        meta = {
            "format": _FORMAT,
            "task": self.task.name,
            **({"world": dict(self.task.facts)} if self.task.facts else {}),
            "vision": {"name": self.vision.name, "latent_size": self.vision.latent_size},
            "memory": {
                "hidden_size": memory.hidden_size,
                "mixtures": memory.mixtures,
                "reward": memory.reward_head is not None,
                "end": memory.end_head is not None,
                "mask": memory.mask_head is not None,
                # Agents without these have files as before.
                **({"restart": True} if memory.restart else {}),
                **({"clock": memory.clock} if memory.clock else {}),
                **({"hit": True} if memory.hit_head is not None else {}),
            },
            **({"samples_z": True} if self.samples_z else {}),
            "inputs": list(self.inputs.names),
            # Not written for a linear C, so that earlier versions can read it as well.
            **({"hidden": self.layout.hidden} if self.layout.hidden else {}),
            "info": self.info,
        }
        save_tensors(Path(directory) / AGENT_FILE, tensors, meta)


def _described(value: Any) -> str:
    """Shape and type of an array for messages."""
    if isinstance(value, np.ndarray | Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__


class AgentPolicy:
    """Acts in N environments at once, each with its own hidden state, and its own controller if there are several.

    z is mu, the mean of V's encoding, without noise. An agent with ``samples_z``, such as those of the published code,
    acts on samples from N(mu, exp(logvar)); other agents use samples in M's training and dreams alone.

    Order of a step, as in the paper: z is encoded from the observation, C acts on [z, h] (h does not depend on this z
    yet), then M advances h by (z, action). M's heads are not evaluated. For a C without inputs, V and M are not run.
    """

    def __init__(self, agent: Agent, num_envs: int, controllers: Tensor, seeds: Sequence[int] | None = None) -> None:
        self.agent, self.num_envs, self._seeds = agent, num_envs, seeds
        self._controllers = agent.controllers(controllers)
        self._in_order = len(controllers) == num_envs
        self.reset()

    def reset(self) -> None:
        """Set all hidden states to zero; row i plays episode i, with controller i if there are several."""
        self._episodes = torch.arange(self.num_envs, device=self.agent.device)
        self._h, self._c = self.agent.memory.initial_state(self.num_envs)
        self._steps = torch.zeros(self.num_envs, device=self.agent.device)
        self._samples = ActingSamples(self.num_envs, self._seeds) if self.agent.samples_z else None
        self.latents = torch.zeros(self.num_envs, self.agent.vision.latent_size, device=self.agent.device)
        self.inputs = torch.zeros(0, self.agent.inputs.size, device=self.agent.device)
        """The inputs (n, F) of C at the last :meth:`act`, for the n environments that acted."""

    def join(self, steps: int) -> None:
        """Begin to act in episodes of which so many ``steps`` have been played without this policy, after a reset."""
        self._steps = self._steps + steps

    @torch.inference_mode()
    def begin(self, rows: np.ndarray, episodes: np.ndarray) -> None:
        """The rows ``rows`` (n,) begin new episodes, with the controllers that have the indices ``episodes`` (n,)."""
        index = torch.from_numpy(rows).to(self.agent.device)
        self._h[index] = self._c[index] = self.latents[index] = 0.0
        self._steps[index] = 0.0
        self._episodes[index] = torch.from_numpy(episodes).to(self.agent.device)
        self._in_order = False
        if self._samples is not None:
            self._samples.begin(rows, episodes)

    def act(self, observations: np.ndarray | Observations, rows: np.ndarray | None = None) -> np.ndarray:
        """Environment actions for the raw observations (n, ...) uint8 of the environments ``rows`` (n,).

        Without ``rows``, there must be one observation for each of the N environments. Raises :class:`UserError` for
        arrays of another shape or type.
        """
        if isinstance(observations, np.ndarray):
            observations = self._checked(observations, rows)
        few = self.num_envs <= _FEW_ROWS and self.agent.device.type == "cpu"
        with torch.inference_mode(), torch_threads(1) if few else contextlib.nullcontext():
            return self._act(observations, rows)

    def _checked(self, raw: np.ndarray, rows: np.ndarray | None) -> Observations:
        expected = (self.num_envs if rows is None else len(rows), *self.agent.task.observation_shape)
        if raw.shape != expected or raw.dtype != np.uint8:
            raise UserError(
                f"expected observations of shape {expected} and type uint8, got {raw.shape} {raw.dtype}; give the "
                "stock environment's observations, one per environment"
            )
        return Observations(self.agent.task, raw)

    def _act(self, observations: Observations, rows: np.ndarray | None) -> np.ndarray:
        agent = self.agent
        every = rows is None or len(rows) == self.num_envs
        index = None if every else torch.from_numpy(rows).to(agent.device)
        if not agent.inputs.names:
            none = torch.zeros(len(observations), 0, device=agent.device)
            return agent.task.env_action(self._control(none, index, observations))
        z, logvar = agent.encode(observations.frames)
        if self._samples is not None:
            z = self._samples.draw(z, logvar, rows)
        own = self._h, self._c, self._steps
        h, c, steps = own if index is None else tuple(part[index] for part in own)
        self.inputs = agent.inputs(z, h, c)
        control = self._control(self.inputs, index, observations)
        action = agent.task.env_action(control)
        if agent.task.remembers_controls:
            taken = agent.task.dream_action(torch.from_numpy(control)).to(agent.device)
        else:
            taken = torch.from_numpy(agent.task.memory_action(action)).to(agent.device)
        h, c = agent.memory.step(z, taken, (h, c), steps)
        if index is None:
            self._h, self._c, self._steps, self.latents = h, c, steps + 1, z
        else:
            self._h[index], self._c[index], self._steps[index], self.latents[index] = h, c, steps + 1, z
        return action

    def _control(self, inputs: Tensor, index: Tensor | None, observations: Observations) -> np.ndarray:
        """Controls (n, C) from the inputs (n, F) of C for the rows ``index`` (None: all); masked ones are -inf."""
        task = self.agent.task
        episodes = self._episodes if index is None else self._episodes[index]
        control: np.ndarray = (
            self._controllers(inputs, None if index is None and self._in_order else episodes).cpu().numpy()
        )
        mask = task.action_mask(observations.frames) if task.masked else None
        if mask is not None:
            control = np.where(mask, control, -np.inf)
        return control

    @property
    def state(self) -> State:
        """h and c of every environment, (N, H) each."""
        return self._h, self._c

    @torch.inference_mode()
    def expected_latents(self) -> Tensor:
        """The next z (N, Z) that M expects: the mean of its mixture after the last :meth:`act`."""
        return expectation(self.agent.memory.heads(self._h).mixture)


def load_agent(name_or_path: str | Path, device: str = "cpu") -> Agent:
    """Load a shipped agent by its name ("car-racing"), or the agent in a file, a directory or a run, here or at a URL.

    URLs: of a bucket (s3://, gs://, az://), a web server (https://) or a hub (hf://OWNER/NAME@REVISION). Raises
    :class:`UserError` if there is none, if the file is damaged, or if it is not an agent of this package.
    """
    chosen = choose_device(device)
    path = agent_path(name_or_path)
    tensors, meta = load_tensors(path)
    try:
        if meta["format"] != _FORMAT:
            older = "it was made by an older version; train it again" if meta["format"] == 1 else "update worldmodels"
            raise ValueError(f"its format is {meta['format']}, this version reads {_FORMAT}; {older}")
        task, sizes = get_task(meta["task"], facts=meta.get("world")), meta["memory"]
        latent, hidden, mixtures = (
            int(size) for size in (meta["vision"]["latent_size"], sizes["hidden_size"], sizes["mixtures"])
        )
        # Imported first, because tensors that its module creates must not be on the meta device.
        VISIONS.get(meta["vision"]["name"])
        # Built without allocating memory, so that wrong sizes in the file cannot use more memory than its tensors.
        with torch.device("meta"):
            vision = make_vision(meta["vision"]["name"], latent)
            heads = bool(sizes["reward"]), bool(sizes["end"]), task.control_size if sizes["mask"] else 0
            more = bool(sizes.get("restart", False)), int(sizes.get("clock", 0)), bool(sizes.get("hit", False))
            if more[1] < 0:
                raise ValueError(f"expected a clock of 0 or more steps, got {more[1]}")
            memory = MDNRNN(latent, task.action_size, hidden, mixtures, *heads, *more)
        fill(vision, tensors, "vision.")
        fill(memory, tensors, "memory.")
        check_finite("controller", tensors["controller"])
        vision.to(chosen), memory.to(chosen)
        starts, states = tensors.get("starts"), tensors.get("start_states")
        for name, values, size in (("starts", starts, latent), ("start_states", states, hidden)):
            if values is not None:
                rows = len(starts) if starts is not None else 0
                if not rows or values.shape != (rows, 2, size):
                    raise ValueError(f"expected (S, 2, {size}) as {name}, got {tuple(values.shape)}")
                check_finite(name, values)
        kind = int(meta.get("hidden", 0)), bool(meta.get("samples_z", False))
        origin = meta["inputs"], meta["info"], starts, states
        moments = Moments.read(tensors, 0 if starts is None else len(starts))
        agent = Agent(task, vision, memory, tensors["controller"], *origin, *kind, moments)
        _check_outputs(agent)
        if (path.parent / ORIGIN_FILE).is_file():  # beside an agent that was downloaded from a hub
            origin = read_json(path.parent / ORIGIN_FILE)
            agent.info = agent.info | {"origin": f"hf://{origin['hub']}@{origin['revision']}"}
        return agent
    except KeyError as error:
        raise UserError(f"{path} is not an agent: it lacks {error}; expected an {AGENT_FILE}") from None
    except (UserError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        if "allocate memory" in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is not an agent that this version of worldmodels can use: {reason}") from None


@torch.inference_mode()
def _check_outputs(agent: Agent) -> None:
    """ValueError if V, M or C compute numbers that are not finite, because finite weights are so large."""
    frames = np.stack([np.full((64, 64, 3), value, np.uint8) for value in (0, 85, 255)])
    frames[1, ::2] = 170
    z, logvar = agent.encode(frames)
    h, c = agent.memory.initial_state(len(z))
    for _ in range(2):
        h, c = agent.memory.step(z, torch.zeros(len(z), agent.task.action_size, device=agent.device), (h, c))
    prediction = agent.memory.heads(h)
    heads: list[Tensor | None] = [*prediction.mixture, *prediction[1:]]
    # C's own output is always within [-1, 1]; what must not overflow is the sum before, for inputs of any likely size.
    before = _LARGEST_INPUT * agent.controller.abs().sum()
    outputs: dict[str, list[Tensor | None]] = {
        "V": [z, logvar, agent.vision.decode(z)],
        "M": [h, c, *heads],
        "C": [before],
    }
    for name, values in outputs.items():
        if not all(value is None or bool(value.isfinite().all()) for value in values):
            raise ValueError(f"the outputs of {name} are not finite, because its weights are too large; train it again")


def untrained_agent(
    task: Task, vision: Vision, memory: MDNRNN, inputs: Sequence[str] | None = None, hidden: int = 0
) -> Agent:
    """An agent of the given V and M, with all parameters of C at zero; hidden: number of hidden units of C."""
    names = task.inputs if inputs is None else inputs
    size = PolicyInputs(names, vision.latent_size, memory.hidden_size).size
    zeros = torch.zeros(Layout(size, task.control_size, hidden).count)
    return Agent(task, vision, memory, zeros, names, hidden=hidden)
