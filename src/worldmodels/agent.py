"""An agent: V + M + C with its task, acting on batches of frames; saved as safetensors and JSON."""

import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from worldmodels.controller.policy import Controllers, parameter_count
from worldmodels.device import choose_device, precision
from worldmodels.errors import UserError
from worldmodels.memory.mdnrnn import MDNRNN, State
from worldmodels.memory.mixture import expectation
from worldmodels.storage.atomic import load_tensors, save_tensors
from worldmodels.tasks import Task, get_task, task_names
from worldmodels.vision.vae import ConvVAE, images_from_frames

AGENT_FILE = "agent.safetensors"
_FORMAT = 1


class Agent:
    """V, M and C of one task.

    ``controller`` holds the flat parameters of C, (P,) float32; ``features`` says what C sees of z, h and c (None: what
    the task says; empty: nothing, so that C is its biases).
    ``info`` is free JSON-able text about where the agent comes from; ``starts`` (S, 2, Z) float16 holds mu and logvar
    of recorded frames with which dreams begin, ``start_states`` (S, 2, H) float16 h and c of M there (None: zeros).
    """

    def __init__(
        self,
        task: Task,
        vision: ConvVAE,
        memory: MDNRNN,
        controller: Tensor,
        features: Sequence[str] | None = None,
        info: dict[str, Any] | None = None,
        starts: Tensor | None = None,
        start_states: Tensor | None = None,
    ) -> None:
        self.task, self.vision, self.memory = task, vision.eval(), memory.eval()
        self.features = tuple(task.features if features is None else features)
        self.controller = controller.detach().float().cpu()
        self.info, self.starts, self.start_states = info or {}, starts, start_states
        self.device = next(vision.parameters()).device
        Controllers(self.controller[None], feature_size(vision, memory, self.features), task.control_size)

    def policy(self, num_envs: int, controllers: Tensor | None = None) -> "AgentPolicy":
        """A policy for ``num_envs`` environments; ``controllers`` (num_envs, P) gives each row its own parameters."""
        if num_envs < 1:
            raise UserError(f"expected at least 1 environment, got {num_envs}")
        return AgentPolicy(self, num_envs, self.controller[None] if controllers is None else controllers)

    def part(self, name: str) -> slice:
        """Where C sees ``name`` (z, h or c) among its features; an empty slice if it does not."""
        if name not in self.features:
            return slice(0)
        before = feature_size(self.vision, self.memory, self.features[: self.features.index(name)])
        return slice(before, before + feature_size(self.vision, self.memory, (name,)))

    def digest(self) -> str:
        """SHA-256 of all weights, by which results of another agent are told apart."""
        total = hashlib.sha256()
        for part in (self.vision.state_dict(), self.memory.state_dict(), {"controller": self.controller}):
            for name, value in sorted(part.items()):
                total.update(name.encode())
                total.update(value.detach().float().cpu().contiguous().numpy().tobytes())
        return total.hexdigest()

    def encode(self, frames: np.ndarray) -> tuple[Tensor, Tensor]:
        """mu and logvar (N, Z), float32, of frames (N, 64, 64, 3) uint8."""
        return encode_frames(self.vision, frames)

    @torch.inference_mode()
    def decode(self, z: Tensor) -> np.ndarray:
        """Frames (N, 64, 64, 3) uint8 that V imagines for z (N, Z)."""
        with precision(self.device):
            images = self.vision.decode(z.to(self.device))
        frames: np.ndarray = (images.float() * 255).round().byte().permute(0, 2, 3, 1).cpu().contiguous().numpy()
        return frames

    def save(self, directory: Path | str) -> None:
        """Write ``agent.safetensors`` (float16, a few MB) into ``directory``."""
        tensors = {f"vision.{name}": value.half() for name, value in self.vision.state_dict().items()}
        tensors |= {f"memory.{name}": value.half() for name, value in self.memory.state_dict().items()}
        tensors["controller"] = self.controller
        if self.starts is not None:
            tensors["starts"] = self.starts.half()
        if self.start_states is not None:
            tensors["start_states"] = self.start_states.half()
        meta = {
            "format": _FORMAT,
            "task": self.task.name,
            "latent_size": self.vision.latent_size,
            "hidden_size": self.memory.hidden_size,
            "mixtures": self.memory.mixtures,
            "reward": self.memory.reward_head is not None,
            "end": self.memory.end_head is not None,
            "allowed": self.memory.allowed_head is not None,
            "features": list(self.features),
            "info": self.info,
        }
        save_tensors(Path(directory) / AGENT_FILE, tensors, meta)


class AgentPolicy:
    """Acts for N environments at once, each with a hidden state (and perhaps a controller) of its own.

    Order of a step, as in the paper: z from the observation, action from [z, h] (h has not seen z yet), then h advances
    by (z, action). M's mixture is not evaluated. A C that sees nothing needs neither V nor M, which then stand still.
    """

    def __init__(self, agent: Agent, num_envs: int, controllers: Tensor) -> None:
        self.agent, self.num_envs = agent, num_envs
        self._size = feature_size(agent.vision, agent.memory, agent.features)
        self._controllers = Controllers(controllers.float().to(agent.device), self._size, agent.task.control_size)
        self.reset()

    def reset(self) -> None:
        """Forget everything: zero hidden states."""
        self._h, self._c = self.agent.memory.initial_state(self.num_envs)
        self.latents = torch.zeros(self.num_envs, self.agent.vision.latent_size, device=self.agent.device)
        self.seen = torch.zeros(0, self._size, device=self.agent.device)
        """What C saw at the last :meth:`act`, (n, F) of the n environments that acted."""

    @torch.inference_mode()
    def act(self, observations: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Actions for the environment from its raw observations, (n, ...) uint8, of the environments ``rows``.

        Without ``rows`` there must be one observation for each of the N environments.
        """
        agent, task = self.agent, self.agent.task
        expected = (self.num_envs if rows is None else len(rows), *task.observation_shape)
        if observations.shape != expected or observations.dtype != np.uint8:
            raise UserError(
                f"expected observations of shape {expected} and type uint8, got {observations.shape} "
                f"{observations.dtype}; give the stock environment's observations, one per environment"
            )
        frames = task.frames(observations)
        every = rows is None or len(rows) == self.num_envs
        index = None if every else torch.from_numpy(rows).to(agent.device)
        if not agent.features:
            return self._choose(torch.zeros(len(frames), 0, device=agent.device), index, frames)
        z, _ = agent.encode(frames)
        h, c = (self._h, self._c) if index is None else (self._h[index], self._c[index])
        known = {"z": z, "h": h, "c": c}
        self.seen = torch.cat([known[name] for name in agent.features], dim=-1)
        action = self._choose(self.seen, index, frames)
        seen = torch.from_numpy(task.memory_action(action)).to(agent.device)
        state = agent.memory.step(z, seen, (h, c))
        if index is None:
            (self._h, self._c), self.latents = state, z
        else:
            self._h[index], self._c[index] = state
            self.latents[index] = z
        return action

    def _choose(self, features: Tensor, index: Tensor | None, frames: np.ndarray) -> np.ndarray:
        """Allowed actions by what C sees (n, F), of the rows ``index``."""
        control = self._controllers(features, index).cpu().numpy()
        allowed = self.agent.task.allowed(frames)
        if allowed is not None:
            control = np.where(allowed, control, -np.inf)
        return self.agent.task.env_action(control)

    @property
    def state(self) -> State:
        """h and c of every environment, (N, H) each."""
        return self._h, self._c

    @torch.inference_mode()
    def expected_latents(self) -> Tensor:
        """What M expects to see next, (N, Z): the mean of its mixture after the last :meth:`act`."""
        return expectation(self.agent.memory.heads(self._h).mixture)


@torch.inference_mode()
def encode_frames(vision: ConvVAE, frames: np.ndarray) -> tuple[Tensor, Tensor]:
    """mu and logvar (N, Z), float32, of frames (N, 64, 64, 3) uint8, as the agent sees them when it acts."""
    device = next(vision.parameters()).device
    with precision(device):
        images = images_from_frames(torch.from_numpy(frames).to(device), torch.bfloat16)
        mu, logvar = vision.encode(images)
    return mu.float(), logvar.float()


def feature_size(vision: ConvVAE, memory: MDNRNN, features: Sequence[str]) -> int:
    """Numbers that C sees."""
    sizes = {"z": vision.latent_size, "h": memory.hidden_size, "c": memory.hidden_size}
    unknown = [name for name in features if name not in sizes]
    if unknown:
        raise UserError(f"a controller sees some of z, h and c, got {list(features)}")
    return sum(sizes[name] for name in features)


def load_agent(name_or_path: str | Path, device: str = "cpu") -> Agent:
    """The shipped agent of a task ("car-racing"), or the one in a directory, file or run.

    Raises :class:`UserError` when there is none, when the file is damaged, or when it is not an agent of this package.
    """
    chosen = choose_device(device)
    path = _agent_path(name_or_path)
    tensors, meta = load_tensors(path)
    try:
        if meta["format"] != _FORMAT:
            raise ValueError(f"its format is {meta['format']}, this version reads {_FORMAT}; update worldmodels")
        task = get_task(meta["task"])
        latent, hidden, mixtures = (int(meta[key]) for key in ("latent_size", "hidden_size", "mixtures"))
        # Without memory at first, so that sizes in the file cannot ask for more than its tensors fill.
        with torch.device("meta"):
            vision = ConvVAE(latent)
            heads = bool(meta["reward"]), bool(meta["end"]), task.control_size if meta.get("allowed") else 0
            memory = MDNRNN(latent, task.action_size, hidden, mixtures, *heads)
        _fill(vision, tensors, "vision.")
        _fill(memory, tensors, "memory.")
        _check_finite("controller", tensors["controller"])
        vision.to(chosen), memory.to(chosen)
        starts, states = tensors.get("starts"), tensors.get("start_states")
        for name, values, size in (("starts", starts, latent), ("start_states", states, hidden)):
            if values is not None:
                rows = len(starts) if starts is not None else 0
                if not rows or values.shape != (rows, 2, size):
                    raise ValueError(f"expected (S, 2, {size}) as {name}, got {tuple(values.shape)}")
                _check_finite(name, values)
        return Agent(task, vision, memory, tensors["controller"], meta["features"], meta["info"], starts, states)
    except KeyError as error:
        raise UserError(f"{path} is not an agent: it lacks {error}; expected an {AGENT_FILE}") from None
    except (UserError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is not an agent that this version of worldmodels can use: {reason}") from None


def _fill(module: nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    """Give a module on the meta device its memory and its weights."""
    given = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    for name in {**wanted, **given}:
        shape = tuple(given[name].shape) if name in given else "nothing"
        if shape != wanted.get(name, "nothing"):
            raise ValueError(f"expected {wanted.get(name, 'nothing')} as {prefix}{name}, got {shape}")
        _check_finite(prefix + name, given[name])
    module.to_empty(device="cpu").load_state_dict(given)


def _check_finite(name: str, values: Tensor) -> None:
    if not values.isfinite().all():
        raise ValueError(f"{name} holds NaN or infinity; train it again")


def shipped_agents() -> list[str]:
    """Names of the agents that come with the package: "car-racing" for a task's own, "car-racing-dream" for another."""
    folder = Path(str(resources.files("worldmodels") / "agents"))
    return sorted(path.parent.name for path in folder.glob(f"*/{AGENT_FILE}"))


def _agent_path(name_or_path: str | Path) -> Path:
    path, name = Path(name_or_path), str(name_or_path)
    if name in shipped_agents() and not path.exists():
        return Path(str(resources.files("worldmodels") / "agents" / name / AGENT_FILE))
    if name in task_names() and not path.exists():
        raise UserError(f"no agent for {name} ships with this version; train one: worldmodels train {name}")
    if path.is_dir():
        candidates = [path / AGENT_FILE, path / "agent" / AGENT_FILE]
        for candidate in candidates:
            if candidate.is_file():
                return candidate
        raise UserError(f"{path} holds no agent ({AGENT_FILE}); expected a finished run or a saved agent")
    if not path.exists():
        known = ", ".join(shipped_agents()) or "none"
        raise UserError(f"no agent called {name_or_path!r} and no such file; shipped agents: {known}")
    return path


def controller_size(task: Task, vision: ConvVAE, memory: MDNRNN, features: Sequence[str]) -> int:
    """Parameters of C for this V and M."""
    return parameter_count(feature_size(vision, memory, features), task.control_size)
