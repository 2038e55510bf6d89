"""World Models (Ha & Schmidhuber 2018): learn a model of a world from pixels, act in its dreams and in the world."""

from worldmodels.core.errors import UserError

__version__ = "0.2.0"
__all__ = ["UserError", "__version__", "load_agent"]

TYPE_CHECKING = False  # typing is not imported, because every import lengthens the time before Ctrl-C is handled
if TYPE_CHECKING:
    from typing import Any

    from worldmodels.agent import load_agent


def __getattr__(name: str) -> "Any":
    """Import torch only when an agent is asked for, so that ``import worldmodels`` and ``--help`` are fast."""
    if name == "load_agent":
        from worldmodels.agent import load_agent

        return load_agent
    raise AttributeError(f"module 'worldmodels' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
