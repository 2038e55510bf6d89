"""The environment variables of processes that run environments."""

import os


def headless() -> dict[str, str]:
    """Those of this process, with which no window is opened, no sound is played and one thread computes."""
    quiet = {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy", "PYGAME_HIDE_SUPPORT_PROMPT": "1"}
    return os.environ | quiet | {"OMP_NUM_THREADS": "1"}
