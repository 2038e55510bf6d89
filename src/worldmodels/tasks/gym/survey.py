"""Finds the facts of a Gymnasium environment by playing a few random episodes, in a process of its own.

Imports no torch. What is found depends on the environment alone, because seeds and numbers of steps are fixed.
"""

import contextlib
import importlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NoReturn

import gymnasium
import numpy as np
from gymnasium import spaces

from worldmodels.core.settings import to_json
from worldmodels.tasks.gym.actions import Actions, action_facts
from worldmodels.tasks.gym.explorers import HeldActions
from worldmodels.tasks.gym.facts import SMALLEST_SIDE, ActionFacts, Facts
from worldmodels.tasks.gym.keys import idle_of, keys_of
from worldmodels.tasks.gym.world import PictureWorld, open_env
from worldmodels.tasks.gym_names import install_hint, needs, unknown

_STEPS = 2000
_EPISODES = 10
"""Random play is over after so many steps, or so many whole episodes."""
_LOOKED_AT = 50
"""Rendering takes most of the time, so that only the pictures of so many steps are looked at."""
_DEFAULT_LIMIT = 1000
"""Longest episode of an environment that has no limit, in steps."""
_HANGS_SECONDS = 60.0
"""An environment that takes longer for a single step counts as one that hangs."""


class Unusable(Exception):
    """The environment cannot be a task, for the reason in the message, one line."""


class _Watch:
    """Ends this process if one call of the environment takes too long; knows what is being done, for messages."""

    def __init__(self, answer: int) -> None:
        self._answer, self._doing, self._since = answer, "", 0.0
        threading.Thread(target=self._look, daemon=True).start()

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Turn an exception of the environment into an :class:`Unusable` that says what was being done."""
        self._doing, self._since = what, time.monotonic()
        try:
            yield
        except Unusable:
            raise
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            text = " ".join(str(error).split())
            raise Unusable(f"it failed when {what}: {type(error).__name__}{f': {text}' if text else ''}") from error
        finally:
            self._doing = ""

    def _look(self) -> None:
        while True:
            time.sleep(0.5)
            what = self._doing
            if what and time.monotonic() - self._since > _HANGS_SECONDS:
                _end(self._answer, {"problem": f"it hangs: no answer in {_HANGS_SECONDS:.0f} s when {what}"})


def survey(env_id: str, options: Mapping[str, Any], watch: _Watch) -> dict[str, Any]:
    """The facts of the environment as JSON. Raises :class:`Unusable`."""
    if options.get("render_mode") not in (None, "rgb_array"):
        raise Unusable(f"expected no render_mode, or rgb_array, got {options['render_mode']!r}")
    spec = _spec(env_id)
    first = Unusable("")
    modes = [""] if "render_mode" in options else ["", "rgb_array"]
    for mode in modes:
        try:
            env = _made(env_id, options, mode, watch)
            try:
                facts = _described(env, spec, env_id, options, mode, watch)
            finally:
                with contextlib.suppress(Exception):
                    env.close()
            if facts is not None:
                return to_json(_played(facts, watch))
        except Unusable as problem:
            # Some environments need a render_mode: the first problem may not be there with one.
            first = first if str(first) else problem
            if mode == modes[-1]:
                raise first from None
    raise first if str(first) else Unusable("it shows no picture")


def _spec(env_id: str) -> Any:
    module, _, name = env_id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            missing = error.name or module
            raise Unusable(f"it needs {missing}, not installed here; {install_hint(missing.split('.')[0])}") from None
        except Exception as error:
            text = " ".join(str(error).split())
            raise Unusable(f"the module {module} cannot be imported: {type(error).__name__}: {text}") from None
    try:
        return gymnasium.spec(name)
    except gymnasium.error.Error:
        raise Unusable(unknown(env_id, gymnasium.registry)) from None


def _made(env_id: str, options: Mapping[str, Any], mode: str, watch: _Watch) -> gymnasium.Env[Any, Any]:
    try:
        with watch.doing("made" + _in_words(options)):
            return open_env(env_id, options, mode)
    except Unusable as problem:
        error = problem.__cause__
        if isinstance(error, gymnasium.error.DependencyNotInstalled | ModuleNotFoundError):
            raise Unusable(f"it needs a package that is not installed here: {' '.join(str(error).split())}") from None
        unknown_option = re.search(r"unexpected keyword argument '(\w+)'", str(problem))
        if unknown_option is not None and unknown_option[1] in options:
            raise Unusable(f"its environment has no option {unknown_option[1]!r}; correct --env") from None
        raise


def _in_words(options: Mapping[str, Any]) -> str:
    return f" with {', '.join(f'{name}={value!r}' for name, value in options.items())}" if options else ""


def _described(
    env: gymnasium.Env[Any, Any], spec: Any, env_id: str, options: Mapping[str, Any], mode: str, watch: _Watch
) -> Facts | None:
    """What spaces and registration tell; None if there is a picture only with the other render_mode."""
    action = _action(env)
    renders = "rgb_array" in (env.metadata.get("render_modes") or ())
    chosen = options.get("render_mode") or mode
    found = _picture_space(env.observation_space)
    if found is not None:
        picture, entry, shape = found
    elif chosen == "rgb_array" and renders:
        picture, entry = "render", ""
        with watch.doing("reset"):
            env.reset(seed=0)
        with watch.doing("rendered"):
            shape = _rendered_shape(env.render())
    elif mode == "" and renders and "render_mode" not in options:
        return None
    else:
        raise Unusable(_no_picture(env.observation_space))
    rate = env.metadata.get("render_fps")
    entry_point = spec.entry_point if isinstance(spec.entry_point, str) else ""
    requires, extra = needs(env_id, entry_point)
    return Facts(
        env_id=f"{env_id.rpartition(':')[0]}:{spec.id}".removeprefix(":"),
        options=dict(options),
        render_mode="" if "render_mode" in options else mode,
        picture=picture,
        entry=entry,
        shape=shape,
        renders=renders,
        action=action,
        max_steps=_limit(env),
        frames_per_second=min(1000, max(1, round(rate))) if isinstance(rate, int | float) and rate > 0 else 30,
        requires=requires,
        extra=extra,
    )


def _picture_space(space: spaces.Space[Any]) -> tuple[str, str, tuple[int, ...]] | None:
    """Where the picture is in an observation: "observation" or "entry", the entry's name, and its shape."""
    if _is_picture(space):
        return "observation", "", tuple(space.shape or ())
    if isinstance(space, spaces.Dict):
        entries = [name for name, part in space.spaces.items() if _is_picture(part)]
        if len(entries) == 1:
            return "entry", entries[0], tuple(space[entries[0]].shape or ())
    return None


def _is_picture(space: spaces.Space[Any]) -> bool:
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return False
    grey, colour = len(space.shape) == 2, len(space.shape) == 3 and space.shape[-1] in (1, 3)
    return (grey or colour) and min(space.shape[:2]) >= SMALLEST_SIDE


def _no_picture(space: spaces.Space[Any]) -> str:
    kind = type(space).__name__ if not isinstance(space, spaces.Box) else f"Box of shape {space.shape} {space.dtype}"
    several = ""
    if isinstance(space, spaces.Dict):
        entries = [name for name, part in space.spaces.items() if _is_picture(part)]
        several = f" with {len(entries)} pictures ({', '.join(entries)})" if len(entries) > 1 else ""
    return (
        f"it shows no picture: its observation is a {kind}{several}, expected uint8 of shape (H, W, 3), (H, W, 1) or "
        f"(H, W) with at least {SMALLEST_SIDE} rows and columns, or an environment that renders rgb_array"
    )


def _rendered_shape(picture: Any) -> tuple[int, ...]:
    array = np.asarray(picture)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3)):
        given = f"an array of {'x'.join(map(str, array.shape))} {array.dtype}" if array.ndim else repr(picture)[:60]
        raise Unusable(f"its render() gives {given}, expected a picture (H, W, 3) uint8")
    return array.shape


def _action(env: gymnasium.Env[Any, Any]) -> ActionFacts:
    try:
        found = action_facts(env.action_space)
    except ValueError as problem:
        raise Unusable(str(problem)) from None
    if found.kind != "discrete":
        return found
    names, keys = _names(env, found.sizes[0]), None
    given = getattr(env.unwrapped, "get_keys_to_action", None)
    with contextlib.suppress(Exception):
        keys = given() if given is not None else None
    pressed = tuple(keys_of(keys, names, found.sizes[0]))
    return replace(found, names=tuple(names), keys=pressed, idle=idle_of(names, found.sizes[0]))


def _names(env: gymnasium.Env[Any, Any], count: int) -> list[str]:
    """Names of the choices, if the environment tells them."""
    with contextlib.suppress(Exception):
        meanings = getattr(env.unwrapped, "get_action_meanings", None)
        names = list(meanings()) if meanings is not None else [one.name for one in env.unwrapped.actions]  # type: ignore[attr-defined]
        if len(names) == count and all(isinstance(name, str) and name for name in names):
            return [name[:40] for name in names]
    return []


def _limit(env: gymnasium.Env[Any, Any]) -> int:
    """The longest episode in steps: of its registration, or else as the environment itself says."""
    spec, inner = env.spec, env.unwrapped
    if spec is not None and spec.max_episode_steps:
        return int(spec.max_episode_steps)
    frames = (spec.kwargs if spec is not None else {}).get("max_num_frames_per_episode")
    skip = (spec.kwargs if spec is not None else {}).get("frameskip", 1)
    if isinstance(frames, int) and frames > 0:  # Atari's limit is in frames
        shortest = skip if isinstance(skip, int) else min(skip)
        return max(1, frames // max(1, shortest))
    for name in ("max_episode_steps", "_max_episode_steps", "max_steps"):
        value = getattr(inner, name, None)
        if isinstance(value, int | np.integer) and not isinstance(value, bool) and 0 < value <= 10_000_000:
            return int(value)
    return _DEFAULT_LIMIT


def _played(facts: Facts, watch: _Watch) -> Facts:
    """The facts with what random episodes tell: their length and the size of their rewards."""
    modes = facts.render_mode, facts.render_mode
    with watch.doing("made"):
        env = PictureWorld(facts.env_id, facts.options, facts.picture, facts.entry, facts.shape, modes)
    actions = Actions(facts.action)
    lengths: list[int] = []
    rewards: list[float] = []
    steps = 0
    nothing: Any = None
    try:
        while steps < _STEPS and len(lengths) < _EPISODES:
            episode = len(lengths)
            player = HeldActions(actions, [episode])
            with watch.doing("reset"):
                env.reset(seed=episode)
            length, over = 0, False
            while not over and steps < _STEPS and length < facts.max_steps:
                env.looks = steps < _LOOKED_AT
                action = player.act(nothing, np.zeros(1, np.int64))[0]
                with watch.doing(f"stepped (step {length + 1} of an episode)"):
                    _, reward, ended, cut, _ = env.step(action)
                rewards.append(reward)
                steps, length, over = steps + 1, length + 1, ended or cut
            lengths.append(length)
    finally:
        with contextlib.suppress(Exception):
            env.close()
    paid = np.array([reward for reward in rewards if reward != 0])
    scale = float(np.sqrt(np.mean(np.square(paid)))) if len(paid) else 1.0
    # The last episode was cut short, unless it is the only one.
    whole = lengths[:-1] if steps >= _STEPS and len(lengths) > 1 else lengths
    mean = max(1, round(float(np.mean(whole))))
    return replace(facts, episode_steps=mean, reward_scale=float(f"{min(max(scale, 1e-6), 1e9):.2g}"))


def _end(answer: int, content: Mapping[str, object]) -> NoReturn:
    os.write(answer, json.dumps(content, allow_nan=False).encode())
    os._exit(0)


def main(answer: int) -> None:
    """Read what to survey as JSON from stdin, and write {"facts": ...} or {"problem": "..."} to ``answer``."""
    request = json.load(sys.stdin)
    watch = _Watch(answer)
    try:
        content: dict[str, object] = {"facts": survey(request["env_id"], request["options"], watch)}
    except Unusable as problem:
        content = {"problem": str(problem)}
    _end(answer, content)
