"""The dream: M as a world of its own, with the interface of any other."""

import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


def register_with_gymnasium() -> None:
    """Make ``worldmodels/Dream-v0`` known to Gymnasium, now or as soon as it is imported.

    Importing it here would make every ``worldmodels --help`` wait for it.
    """
    if "gymnasium" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _WhenImported())


def _register() -> None:
    import gymnasium

    gymnasium.register(
        id="worldmodels/Dream-v0",
        entry_point="worldmodels.dream.env:DreamEnv",
        vector_entry_point="worldmodels.dream.env:DreamVectorEnv",
    )


class _WhenImported(importlib.abc.MetaPathFinder):
    """Finds nothing itself; registers the dream after the one who finds Gymnasium has loaded it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "gymnasium":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        loader = spec.loader if spec is not None else None
        if loader is not None:
            load = loader.exec_module

            def load_and_register(module: ModuleType) -> None:
                load(module)
                _register()

            loader.exec_module = load_and_register  # type: ignore[method-assign]
        return spec
