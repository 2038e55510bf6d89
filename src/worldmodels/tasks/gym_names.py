"""Names of Gymnasium environments: as tasks, for ``gymnasium.make``, and in messages."""

import difflib
import json
from collections.abc import Iterable
from typing import Any

import gymnasium

from worldmodels.core.errors import UserError

PREFIX = "gym:"
_PACKAGES = {"ALE/": "ale_py", "MiniGrid-": "minigrid", "BabyAI-": "minigrid", "MiniWorld-": "miniworld"}
"""Modules that register environments whose ids begin so; they need not be named."""
_EXTRAS = {"ale_py": "ale", "minigrid": "minigrid"}
"""Extras of this package that install such a module."""
_BUILT_IN = {
    "box2d": (("Box2D", "pygame"), "car"),
    "classic_control": (("pygame",), "play"),
    "toy_text": (("pygame",), "play"),
    "mujoco": (("mujoco",), ""),
}
"""What Gymnasium's own environments need, by their folder: modules, and the extra of this package."""


def is_gym(name: str) -> bool:
    """Whether a task's name is that of a Gymnasium environment."""
    return name.startswith(PREFIX)


def known_to_gymnasium(env_id: str) -> bool:
    """Whether an id is registered now, or would be by a package that is known here."""
    return env_id in gymnasium.registry or env_id.startswith(tuple(_PACKAGES))


def make_id(name: str) -> str:
    """The id for ``gymnasium.make``, "module:Id-v0" or "Id-v0", of the task called ``name``.

    Raises :class:`UserError` for a name without an id.
    """
    module, _, env_id = name.removeprefix(PREFIX).strip().rpartition(":")
    if not env_id or any(not part.isidentifier() for part in (module.split(".") if module else ())):
        raise UserError(f"expected gym:ID or gym:MODULE:ID, such as gym:CartPole-v1, got {name!r}")
    known = next((package for start, package in _PACKAGES.items() if env_id.startswith(start)), "")
    module = module or known
    return f"{module}:{env_id}" if module else env_id


def task_name(env_id: str) -> str:
    """The name of the task for an id of ``gymnasium.make``; the module is left out where it follows from the id."""
    short = env_id.rpartition(":")[2]
    return PREFIX + (short if make_id(PREFIX + short) == env_id else env_id)


def same_world(name: str, env_id: str) -> bool:
    """Whether the task called ``name`` is of the environment ``env_id``, whose version the name may leave out."""
    wanted, found = task_name(make_id(name)), task_name(env_id)
    base, _, version = found.rpartition("-v")
    return wanted == found or (wanted == base and version.isdigit())


def title_of(env_id: str) -> str:
    """The name shown to people: "CartPole", "ALE Pong", "MiniGrid Empty 8x8"."""
    base, _, version = env_id.rpartition(":")[2].rpartition("-v")
    words = (base if base and version.isdigit() else env_id.rpartition(":")[2]).replace("/", " ").replace("-", " ")
    return " ".join(words.split())


def needs(env_id: str, entry_point: str) -> tuple[tuple[str, ...], str]:
    """The modules that an environment needs, and the extra of this package that installs them, "" for none.

    entry_point: where its class is, as registered: "ale_py.env:AtariEnv".
    """
    module, _, _ = env_id.rpartition(":")
    package, *inside = (entry_point or module).partition(":")[0].split(".")
    if package == "gymnasium":
        return _BUILT_IN.get(inside[1] if len(inside) > 1 else "", ((), ""))
    top = module.partition(".")[0]
    modules = tuple(name for name in dict.fromkeys((top, package)) if name)
    return modules, _EXTRAS.get(package, "")


def shown_option(value: Any) -> str:
    """An option of ``gymnasium.make`` as on the command line."""
    return value if isinstance(value, str) and value.isidentifier() else json.dumps(value)


def install_hint(module: str) -> str:
    """How to install a module that an environment needs."""
    extra = _EXTRAS.get(module)
    return f'pip install "worldmodels[{extra}]"' if extra else "install the package that contains it"


def unknown(env_id: str, ids: Iterable[str]) -> str:
    """What to say of an id that is not registered. ids: those that are."""
    close = difflib.get_close_matches(env_id.rpartition(":")[2], list(ids), n=3)
    module = env_id.rpartition(":")[0]
    names = [task_name(f"{module}:{name}" if module else name) for name in close]
    hint = f"did you mean {' or '.join(names)}?" if names else "expected an id that gymnasium.make knows"
    if not close and not module:
        hint += "; an id of another package needs the module that registers it: gym:MODULE:ID"
    return f"unknown Gymnasium environment {env_id.rpartition(':')[2]!r}; {hint}"
