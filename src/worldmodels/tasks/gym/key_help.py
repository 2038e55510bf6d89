"""What the keys do in a Gymnasium environment, and which actions have none, in words for people who play it."""

from worldmodels.tasks.gym.facts import ActionFacts
from worldmodels.tasks.gym.keys import AXES, ORDER, other_choices, resting

Meanings = tuple[tuple[tuple[str, ...], str], ...]
"""As :attr:`~worldmodels.tasks.base.Playing.key_meanings`."""


def key_help(facts: ActionFacts) -> tuple[Meanings, str]:
    """What the keys do, and which actions have none, in a few words (empty: all have one)."""
    if facts.kind == "box":
        return _of_numbers(facts)
    return _of_a_choice(facts) if facts.kind == "discrete" else _of_choices(facts)


def _of_numbers(facts: ActionFacts) -> tuple[Meanings, str]:
    count = len(facts.low)
    meanings = [
        (axis, f"{f'number {index} to ' if count > 1 else ''}{facts.low[index]:g} or {facts.high[index]:g}")
        for index, axis in enumerate(AXES[:count])
    ]
    rest = [resting(low, high) for low, high in zip(facts.low, facts.high, strict=True)]
    resting_text = f"{rest[0]:g}" if len(set(rest)) == 1 else "the middle"
    left = count - len(meanings)
    lacking = f"{left} of {count} numbers have no keys" if left else ""
    return (*meanings, ((), resting_text)), lacking


def _of_a_choice(facts: ActionFacts) -> tuple[Meanings, str]:
    (count,) = facts.sizes
    names = [" ".join(name.split()) for name in facts.names] or [f"action {index}" for index in range(count)]
    made = {facts.idle}
    digits: list[str] = []
    meanings: list[tuple[tuple[str, ...], str]] = []
    for entry in facts.keys:
        keys, _, choice = entry.rpartition("=")
        made.add(int(choice))
        if keys.isdigit():
            digits.append(keys)
        elif "+" not in keys:  # combinations are those of the keys that are shown
            meanings.append(((keys,), names[int(choice)]))
    if digits:
        meanings.append((tuple(digits), "the action of that number"))
    lacking = f"{count - len(made)} of {count} actions have no key" if len(made) < count else ""
    return (*meanings, ((), names[facts.idle])), lacking


def _of_choices(facts: ActionFacts) -> tuple[Meanings, str]:
    others = other_choices(facts)
    meanings = [
        ((key,), f"part {part} to {facts.start[part] + choice}")
        for key, (part, choice) in zip(ORDER, others, strict=False)
    ]
    left = len(others) - len(meanings)
    lacking = f"{left} of {len(others)} choices have no key" if left else ""
    return (*meanings, ((), "all first")), lacking
