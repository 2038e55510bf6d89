"""Where agents are: those that ship with the package, and the files of others, in folders, in runs and at URLs."""

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors import safe_open

from worldmodels.core.errors import UserError
from worldmodels.core.storage.agents import agent_at
from worldmodels.core.storage.place import is_url, plain_path
from worldmodels.tasks import is_task

AGENT_FILE = "agent.safetensors"


@dataclass(frozen=True)
class ShippedAgent:
    """A trained agent that comes with the package; ``load_agent(name)`` loads it.

    name: the task's name for its main agent, or longer ("car-racing-dream"); inputs: what C sees, any of z, h and c;
    latent_size, hidden_size: numbers in z and in h; info: notes on its origin, such as the preset and the seed.
    """

    name: str
    task: str
    inputs: tuple[str, ...]
    latent_size: int
    hidden_size: int
    info: dict[str, Any]


def agents() -> tuple[ShippedAgent, ...]:
    """The trained agents that come with the package, in the order of their names; no weights are loaded.

    Example: ``[agent.name for agent in agents() if agent.task == "car-racing"]``
    """
    found = []
    for name in shipped_names():
        with safe_open(shipped_path(name), framework="numpy") as file:
            meta = json.loads(file.metadata()["meta"])
        sizes = meta["vision"]["latent_size"], meta["memory"]["hidden_size"]
        found.append(ShippedAgent(name, meta["task"], tuple(meta["inputs"]), *sizes, meta["info"]))
    return tuple(found)


def shipped_names() -> list[str]:
    """Names of the shipped agents: the task's name for its main agent, or longer ("car-racing", "car-racing-dream")."""
    return sorted(path.parent.name for path in _folder().glob(f"*/{AGENT_FILE}"))


def shipped_path(name: str) -> Path:
    """The file of the shipped agent with this name."""
    return _folder() / name / AGENT_FILE


def _folder() -> Path:
    return Path(str(resources.files("worldmodels") / "agents"))


def agent_path(name_or_path: str | Path) -> Path:
    """The file of a shipped agent, or of the agent in a file, a folder or a run; of one at a URL, its copy here.

    Raises :class:`UserError` if there is none.
    """
    if is_url(name_or_path):
        return agent_at(str(name_or_path), AGENT_FILE)
    path, name = plain_path(name_or_path), str(name_or_path)
    if name in shipped_names() and not path.exists():
        return shipped_path(name)
    if is_task(name) and not path.exists():
        raise UserError(f"no agent for {name} ships with this version; train one: worldmodels train {name}")
    if path.is_dir():
        candidates = [path / AGENT_FILE, path / "agent" / AGENT_FILE]
        for candidate in candidates:
            if candidate.is_file():
                return candidate
        raise UserError(f"{path} holds no agent ({AGENT_FILE}); expected a finished run or a saved agent")
    if not path.exists():
        known = ", ".join(shipped_names()) or "none"
        raise UserError(f"no agent called {name_or_path!r} and no such file; shipped agents: {known}")
    return path
