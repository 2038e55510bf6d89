"""What comes from outside the package: modules in a folder of their own, and names that are registered for a while."""

import contextlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from worldmodels.core.registry import Registry


@contextlib.contextmanager
def registered(registry: Registry[Any], name: str, target: Any) -> Iterator[None]:
    """Inside, ``name`` is known."""
    registry.register(name, target)
    try:
        yield
    finally:
        registry.unregister(name)


@contextlib.contextmanager
def importable(folder: Path, **modules: str) -> Iterator[None]:
    """Inside, modules with these texts, written into ``folder``, can be imported."""
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in modules:
            sys.modules.pop(name, None)
