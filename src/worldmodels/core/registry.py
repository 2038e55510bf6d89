"""Registries of objects that are chosen by name, from this package or another: tasks, vision models, strategies, ..."""

import difflib
from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from operator import attrgetter
from typing import Any, Generic, TypeVar, cast

from worldmodels.core.errors import UserError

T = TypeVar("T")


class Registry(Generic[T]):
    """Objects by name, each given as ``module:attribute`` and imported when :meth:`get` asks for it.

    what: the kind of object, for messages; known: the objects of this package; group: the entry point group through
    which other installed packages add objects ("worldmodels.tasks"). :meth:`register` adds one in the running process.
    """

    def __init__(self, what: str, known: Mapping[str, str], group: str) -> None:
        self._what, self._known, self._group = what, dict(known), group
        self._registered: dict[str, T | str] = {}

    @cached_property
    def _installed(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self._group)}

    def names(self) -> list[str]:
        """Every name, sorted."""
        return sorted({*self._known, *self._registered, *self._installed})

    def register(self, name: str, target: "T | str") -> None:
        """Add an object, or the ``module:attribute`` where it is; a name that is taken is a :class:`UserError`."""
        if name in self._known or name in self._registered:
            raise UserError(f"there is a {self._what} called {name!r} already; choose another name")
        self._registered[name] = target

    def unregister(self, name: str) -> None:
        """Remove what :meth:`register` added."""
        self._registered.pop(name, None)

    def get(self, name: str) -> T:
        """The object called ``name``. Raises :class:`UserError` for a name that is unknown or cannot be imported."""
        target = self.target(name)
        return cast(T, self._load(name, target)) if isinstance(target, str) else target

    def target(self, name: str) -> "T | str":
        """Where the object called ``name`` is, as ``module:attribute``, or the object itself if it was registered."""
        if name in self._known:
            return self._known[name]
        if name in self._registered:
            return self._registered[name]
        if name in self._installed:
            return self._installed[name].value
        close = difflib.get_close_matches(str(name), self.names(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(self.names())}"
        raise UserError(f"unknown {self._what} {name!r}; {hint}")

    def _load(self, name: str, target: str) -> Any:
        """The object at ``target``, a ``module:attribute``. Raises :class:`UserError` if it cannot be imported."""
        module, _, attribute = target.partition(" ")[0].partition(":")
        try:
            return attrgetter(attribute)(import_module(module)) if attribute else import_module(module)
        except (ModuleNotFoundError, AttributeError) as error:
            raise UserError(
                f"the {self._what} {name!r} is registered as {target}, which cannot be imported ({error}); install the "
                "package that it belongs to, or correct the entry"
            ) from None
