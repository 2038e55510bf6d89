"""World Models (Ha & Schmidhuber 2018): learn a model of a world from pixels, act in its dreams and in the world.

    import worldmodels

    agent = worldmodels.load_agent("car-racing")        # a shipped agent, or the path of a run
    config = worldmodels.preset("quick", "car-racing", seed=2)
    run = worldmodels.train(config, "runs/first")       # a RunReader: metrics, episodes, latents, agent, scores
    worldmodels.evaluate(run.agent(), episodes=10)

``docs/python.md`` shows all of it. Everything is imported when it is first used.
"""

import importlib

from worldmodels.core.errors import UserError

__version__ = "0.2.0"
__all__ = [
    "Agent",
    "Config",
    "RunReader",
    "RunStatus",
    "ShippedAgent",
    "UserError",
    "__version__",
    "agents",
    "evaluate",
    "load_agent",
    "open_run",
    "preset",
    "run_stage",
    "runs",
    "train",
]

TYPE_CHECKING = False  # typing is not imported, because every import lengthens the time before Ctrl-C is handled
if TYPE_CHECKING:
    from typing import Any

    from worldmodels.agent import Agent as Agent
    from worldmodels.agent import load_agent as load_agent
    from worldmodels.agent_files import ShippedAgent as ShippedAgent
    from worldmodels.agent_files import agents as agents
    from worldmodels.run.api import evaluate as evaluate
    from worldmodels.run.api import open_run as open_run
    from worldmodels.run.api import preset as preset
    from worldmodels.run.api import run_stage as run_stage
    from worldmodels.run.api import train as train
    from worldmodels.run.config import Config as Config
    from worldmodels.run.listing import RunStatus as RunStatus
    from worldmodels.run.listing import runs as runs
    from worldmodels.run.reader import RunReader as RunReader

_MODULES = {
    "Agent": "worldmodels.agent",
    "Config": "worldmodels.run.config",
    "RunReader": "worldmodels.run.reader",
    "RunStatus": "worldmodels.run.listing",
    "ShippedAgent": "worldmodels.agent_files",
    "agents": "worldmodels.agent_files",
    "evaluate": "worldmodels.run.api",
    "load_agent": "worldmodels.agent",
    "open_run": "worldmodels.run.api",
    "preset": "worldmodels.run.api",
    "run_stage": "worldmodels.run.api",
    "runs": "worldmodels.run.listing",
    "train": "worldmodels.run.api",
}
"""Where the public names are; they are imported on first use, so that ``import worldmodels`` does not import torch."""


def __getattr__(name: str) -> "Any":
    if name not in _MODULES:
        raise AttributeError(f"module 'worldmodels' has no attribute {name!r}; it offers {', '.join(__all__)}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
