"""The hooks with which the site is built, and the pages that they write."""

import importlib.util
from functools import cache
from types import ModuleType

from cases import ROOT


@cache
def hooks() -> ModuleType:
    """The module docs/hooks.py."""
    spec = importlib.util.spec_from_file_location("site_hooks_of_docs", ROOT / "docs" / "hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def generated() -> dict[str, str]:
    """The text of every page that the build writes, by its name."""
    return {name: make() for name, make in hooks().PAGES.items()}
