"""Keys for the actions of a space: for choices those that the environment names, or arrows by names of choices."""

from collections.abc import Sequence
from typing import Any

from worldmodels.tasks.gym.facts import ActionFacts

AXES = (("left", "right"), ("down", "up"), ("1", "2"), ("3", "4"), ("5", "6"), ("7", "8"), ("9", "0"))
"""Keys that lower and raise the first numbers of a box."""
ORDER = ("left", "right", "up", "down", *"1234567890")
"""Keys of the choices of several parts, in the order of :func:`other_choices`."""
_ARROWS = {"w": "up", "a": "left", "s": "down", "d": "right"}
_SPECIAL = {
    1073741903: "right", 1073741904: "left", 1073741905: "down", 1073741906: "up",
    275: "right", 276: "left", 274: "down", 273: "up",
}  # fmt: skip
"""Numbers of arrow keys in SDL, of its versions 2 and 1."""
FIRE = "f"
"""The key for what environments put on the space bar, on which the agent takes over here."""
_TAKEN = "adnpqsw"
"""Letters that mean something else to those who play."""
_WORDS = {
    "left": ("left",),
    "right": ("right",),
    "up": ("up", "forward", "accelerate", "main engine"),
    "down": ("down", "back", "backward", "brake"),
}
"""Names of choices for which an arrow is natural."""
_IDLE = ("noop", "no-op", "nothing", "none", "idle", "stay", "done")


def keys_of(given: Any, names: Sequence[str], count: int) -> list[str]:
    """Keys and the choice, from 0, that they make while they are held: ["left=0", "up+left=4"].

    given: what ``get_keys_to_action`` of the environment returned, None without it; names: of the choices, may be
    empty; count: of the choices. The digits choose, too: 0 the first.
    """
    found = _given(given, count) if isinstance(given, dict) else {}
    if not any(key in found for key in ("left", "right", "up", "down")):
        found |= {key: choice for key, choice in _by_name(names, count).items() if choice not in found.values()}
    found |= {str(choice): choice for choice in range(min(10, count))}
    return [f"{keys}={choice}" for keys, choice in found.items()]


def idle_of(names: Sequence[str], count: int) -> int:
    """The choice that does the least."""
    lower = [name.lower() for name in names]
    for word in _IDLE:
        if word in lower:
            return lower.index(word)
    return 1 if count == 3 and not names else 0


def held_choice(keys: Sequence[str], held: frozenset[str], idle: int) -> int:
    """The choice for the keys that are held: of the longest combination of which all are."""
    best, choice = 0, idle
    for entry in keys:
        wanted, _, number = entry.rpartition("=")
        combination = set(wanted.split("+"))
        if combination <= held and len(combination) > best:
            best, choice = len(combination), int(number)
    return choice


def resting(low: float, high: float) -> float:
    """The number between these bounds that stands without any key: 0 if it is one, else the middle."""
    return 0.0 if low <= 0 <= high else (low + high) / 2


def other_choices(facts: ActionFacts) -> list[tuple[int, int]]:
    """The parts of several choices, each with its choices from 0 but the first, which is made without any key."""
    return [(part, choice) for part, size in enumerate(facts.sizes) for choice in range(1, size)]


def _given(given: dict[Any, Any], count: int) -> dict[str, int]:
    found = {}
    for combination, choice in given.items():
        parts = combination if isinstance(combination, tuple | list | str) else (combination,)
        names = [_name(part) for part in parts]
        if names and all(names) and isinstance(choice, int) and 0 <= choice < count:
            found["+".join(name for name in names if name)] = choice
    return found


def _name(given: Any) -> str | None:
    """The name that viewers give a key of an environment; None for a key that they do not hold."""
    if isinstance(given, int) and given in _SPECIAL:
        return _SPECIAL[given]
    key = (chr(given) if 0 < given < 128 else "") if isinstance(given, int) else str(given).lower()
    if key in _ARROWS:
        return _ARROWS[key]
    if key in (" ", "space"):
        return FIRE
    if key in _ARROWS.values():
        return key
    return key if len(key) == 1 and key.isalpha() and key not in _TAKEN + FIRE else None


def _by_name(names: Sequence[str], count: int) -> dict[str, int]:
    lower = [name.lower() for name in names]
    found = {key: lower.index(word) for key, words in _WORDS.items() for word in words if word in lower}
    if found or names:
        return found
    # Without any names, as most environments of two, three or four choices have them.
    usual = {2: ("left", "right"), 3: ("left", "", "right")}.get(count, ("", "left", "up", "right", "down"))
    return {key: choice for choice, key in enumerate(usual[:count]) if key}
