"""What must be known of a Gymnasium environment to make it a task. It is found once, and saved in runs and agents."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worldmodels.core.errors import UserError
from worldmodels.core.settings import choice, from_json, number, part, table, text, to_json

LARGEST_PICTURE = 1 << 24
"""Most pixels of a picture."""
MOST_NUMBERS = 512
"""Most choices or numbers of an action."""
SMALLEST_SIDE = 16
"""Observations with fewer rows or columns are taken for a code and not for a picture, as MiniGrid's 7x7x3 are."""


@dataclass(frozen=True)
class ActionFacts:
    """The action space of an environment."""

    kind: str = choice("discrete", "discrete", "multi-discrete", "multi-binary", "box")
    """The kind of space."""
    sizes: tuple[int, ...] = number((), low=1, high=MOST_NUMBERS)
    """Number of choices of every part of an action; of a box, the shape of an action."""
    start: tuple[int, ...] = number((), low=-(1 << 31), high=1 << 31)
    """The lowest choice of every part; of a box, nothing."""
    low: tuple[float, ...] = number(())
    """Lowest numbers of a box, flat."""
    high: tuple[float, ...] = number(())
    """Highest numbers of a box, flat."""
    dtype: str = text("int64")
    """Type of the numbers."""
    names: tuple[str, ...] = text(())
    """Names of the choices of a discrete space."""
    keys: tuple[str, ...] = text(())
    """Keys and the choice that they make while they are held, of a discrete space: "up+left=4"."""
    idle: int = number(0, low=0, high=MOST_NUMBERS)
    """The choice without any key, counted from 0, of a discrete space."""


@dataclass(frozen=True)
class Facts:
    """A Gymnasium environment as it was found."""

    env_id: str = text("")
    """Its id, with the module that registers it if that is not Gymnasium: "ale_py:ALE/Pong-v5"."""
    options: dict[str, Any] = table()
    """Options of ``gymnasium.make`` that were chosen."""
    render_mode: str = choice("", "", "rgb_array")
    """The render_mode with which it is made for training."""
    picture: str = choice("observation", "observation", "entry", "render")
    """Where the picture is: the observation, an entry of it, or what the environment renders."""
    entry: str = text("")
    """The entry of a Dict observation that is the picture."""
    shape: tuple[int, ...] = number((), low=1, high=8192)
    """Shape of the picture, (H, W), (H, W, 1) or (H, W, 3)."""
    renders: bool = text(False)
    """Whether it can render pictures for people."""
    action: ActionFacts = part(ActionFacts)
    max_steps: int = number(1000, low=1, high=10_000_000)
    """Longest episode, in steps."""
    episode_steps: int = number(1000, low=1, high=10_000_000)
    """Mean length of random episodes, in steps; at least this if they were cut short."""
    reward_scale: float = number(1.0, above=0, high=1e12)
    """Root mean square of the rewards that are not zero."""
    frames_per_second: int = number(30, low=1, high=1000)
    """Steps per second at which people watch and play."""
    requires: tuple[str, ...] = text(())
    """Modules that must be installed."""
    extra: str = text("")
    """The extra of this package that installs them; empty for other packages."""


def read_facts(content: Mapping[str, Any], where: str) -> Facts:
    """Facts from the JSON of a run or an agent, which may come from somebody else.

    where: what they are of, for messages. Raises :class:`UserError` for content that is not what was saved.
    """
    facts = from_json(Facts, content, where="world.")
    action, pixels = facts.action, math.prod(facts.shape)
    count = math.prod(action.sizes)
    box = action.kind == "box"
    numbers = count if box else sum(action.sizes)
    problem = ""
    if not facts.env_id or len(facts.shape) not in (2, 3) or (len(facts.shape) == 3 and facts.shape[2] not in (1, 3)):
        problem = "it has no id or no shape of a picture"
    elif pixels > 3 * LARGEST_PICTURE:
        problem = f"its pictures have {pixels:,} numbers"
    elif not 1 <= numbers <= MOST_NUMBERS:
        problem = f"its actions have {numbers} choices or numbers"
    elif box and not len(action.low) == len(action.high) == count:
        problem = "the bounds of its actions do not fit their shape"
    elif box and not all(low < high for low, high in zip(action.low, action.high, strict=True)):
        problem = "the bounds of its actions are empty"
    elif not box and len(action.start) != len(action.sizes):
        problem = "the choices of its actions have no beginning"
    elif action.kind == "discrete" and (len(action.sizes) != 1 or action.idle >= action.sizes[0]):
        problem = "its actions are not of one kind"
    elif action.kind == "discrete" and not _names_and_keys_fit(action):
        problem = "the names or the keys of its actions do not fit their number"
    elif action.dtype not in _TYPES or (box and action.dtype not in _TYPES[:2]):
        problem = f"its actions are of type {action.dtype}"
    elif facts.picture == "entry" and not facts.entry:
        problem = "no entry of its observations is named"
    if problem:
        raise UserError(f"{where} is not described as worldmodels does it: {problem}")
    return facts


def _names_and_keys_fit(action: ActionFacts) -> bool:
    """Whether there are no names or one for each choice, and every key is for one of them."""
    (count,) = action.sizes
    chosen = [entry.rpartition("=") for entry in action.keys]
    keys_fit = all(keys and number.isdecimal() and int(number) < count for keys, _, number in chosen)
    return keys_fit and len(action.names) in (0, count)


_TYPES = ("float32", "float64", "int64", "int32", "int16", "int8", "uint8")
"""Types of actions; those of a box come first."""


def facts_json(facts: Facts) -> dict[str, Any]:
    """Facts as JSON for :func:`read_facts`."""
    return to_json(facts)
