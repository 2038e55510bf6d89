"""Gamepads: what pygame's joystick events mean for a viewer."""

import contextlib
from typing import Any

from worldmodels.play.viewer import Viewer

_STEER, _BACK, _FORWARD = 0, 2, 5
"""Axes of common gamepads: the left stick to the right, and the left and the right trigger, which rest at -1."""
_KEYS = {0: "up", 1: "down", 3: "space", 7: "enter"}
"""What the buttons A, B, Y and start do, as keys."""
_DEAD = 0.15
"""How far a stick at rest may be from its middle."""


class Gamepad:
    """Translates the events of all gamepads; those that are connected later are opened, too."""

    def __init__(self, pygame: Any) -> None:
        self._pygame = pygame
        self._axes = {_STEER: 0.0, _BACK: -1.0, _FORWARD: -1.0}
        self._hat: set[str] = set()
        with contextlib.suppress(pygame.error):
            pygame.joystick.init()
        self._open: list[Any] = []
        self._connect()

    def tell(self, viewer: Viewer, event: Any) -> None:
        """Pass on an event, if it is one of a gamepad."""
        pygame = self._pygame
        if event.type in (pygame.JOYDEVICEADDED, pygame.JOYDEVICEREMOVED):
            self._connect()
        elif event.type == pygame.JOYAXISMOTION and event.axis in self._axes:
            self._axes[event.axis] = event.value
            steer = self._axes[_STEER]
            pulled = [(self._axes[axis] + 1) / 2 for axis in (_FORWARD, _BACK)]
            forward, back = (0.0 if part < _DEAD else part for part in pulled)
            viewer.tilt(0.0 if abs(steer) < _DEAD else steer, forward, back)
        elif event.type == pygame.JOYBUTTONDOWN and event.button in _KEYS:
            viewer.press(_KEYS[event.button])
        elif event.type == pygame.JOYBUTTONUP and event.button in _KEYS:
            viewer.release(_KEYS[event.button])
        elif event.type == pygame.JOYHATMOTION:
            across, upward = event.value
            held = {name for name, down in zip(("left", "right"), (across < 0, across > 0), strict=True) if down}
            held |= {name for name, down in zip(("down", "up"), (upward < 0, upward > 0), strict=True) if down}
            for name in sorted(self._hat - held):
                viewer.release(name)
            for name in sorted(held - self._hat):
                viewer.press(name)
            self._hat = held

    def _connect(self) -> None:
        with contextlib.suppress(self._pygame.error):
            count = self._pygame.joystick.get_count()
            self._open = [self._pygame.joystick.Joystick(number) for number in range(count)]
