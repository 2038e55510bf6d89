"""World Models: learn a model of a world from pixels, act in its dreams, act in the world (Ha & Schmidhuber 2018)."""

import os
from typing import TYPE_CHECKING, Any

from worldmodels.dream import register_with_gymnasium
from worldmodels.errors import UserError

# Idle OpenMP threads of torch spin for milliseconds by default and take the cores from the simulator's threads; this
# must be said before torch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

__version__ = "0.1.0"
__all__ = ["UserError", "__version__", "load_agent"]

register_with_gymnasium()

if TYPE_CHECKING:
    from worldmodels.agent import load_agent


def __getattr__(name: str) -> Any:
    """Import torch only when an agent is asked for, so that `import worldmodels` and `--help` stay quick."""
    if name == "load_agent":
        from worldmodels.agent import load_agent

        return load_agent
    raise AttributeError(f"module 'worldmodels' has no attribute {name!r}")
