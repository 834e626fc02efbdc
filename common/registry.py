"""Names of what can be added, here or by another package: surveys, renderers, encodings, tasks, backbones.

    RENDERERS: Registry[type[Renderer]] = Registry("IMAGE", "specshards.renderers", ["specshards.render.map2d"])

    @RENDERERS.register("map2d")
    class Map2d(Renderer): ...

Another package names a module of its own as an entry point of the group; importing it registers what it holds:

    [project.entry-points."specshards.renderers"]
    sparkline = "my_package.sparkline"
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import TypeVar

from specshards.common.errors import UsageError

T = TypeVar("T")
_LOGGER = logging.getLogger("specshards")


class Registry(Mapping[str, T]):
    """Things by name, in the order in which they were registered: the project's own, then other packages'.

    Modules are imported when the registry is first looked at, so that whoever registers may import this.

    Args:
        kind: what a user calls it, for errors: `IMAGE`. group: of entry points.
        modules: of the project, each of which registers something.
    """

    def __init__(self, kind: str, group: str, modules: Sequence[str] = ()) -> None:
        self.kind, self.group = kind, group
        self._modules = list(modules)
        self._things: dict[str, T] = {}
        self._failed: dict[str, str] = {}
        self._is_loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that gives a thing its name.

        Raises:
            UsageError: another thing has the name.
        """

        def registered(thing: T) -> T:
            known = self._things.get(name, thing)
            if _origin(known) != _origin(thing):
                raise UsageError(f"{self.kind}={name} is registered twice: by {_origin(known)} and {_origin(thing)}")
            self._things[name] = thing
            return thing

        return registered

    def choose(self, name: str) -> T:
        """The thing of a name. UsageError for an unknown one lists the others."""
        if name in self:
            return self[name]
        why = "".join(f"; {package} could not be loaded: {reason}" for package, reason in self._failed.items())
        raise UsageError(f"unknown {self.kind}={name}: choose {', '.join(self)}{why}")

    def __getitem__(self, name: str) -> T:
        """The thing of a name."""
        self._load()
        return self._things[name]

    def __iter__(self) -> Iterator[str]:
        """The names."""
        self._load()
        return iter(self._things)

    def __len__(self) -> int:
        """How many there are."""
        self._load()
        return len(self._things)

    def _load(self) -> None:
        if self._is_loaded:
            return
        self._is_loaded = True
        for module in self._modules:
            import_module(module)
        # Some may have been imported before, in any order; the order of the modules is what a user sees.
        place = {name: number for number, name in enumerate(self._modules)}
        own = sorted(self._things.items(), key=lambda one: place.get(getattr(one[1], "__module__", ""), len(place)))
        self._things = dict(own)
        for entry in sorted(entry_points(group=self.group), key=lambda entry: (entry.name, entry.value)):
            try:
                entry.load()
            except Exception as error:  # a stranger's package must not stop the project's own
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                self._failed[entry.value] = reason
                _LOGGER.warning("%s %s of another package could not be loaded: %s", self.kind, entry.value, reason)


def _origin(thing: object) -> str:
    """Where a thing was defined: the same again after its module is imported anew, as in a worker or a notebook.

    An instance may say so itself, by an attribute `origin`.
    """
    if isinstance(said := getattr(thing, "origin", None), str):
        return said
    kind = thing if isinstance(thing, type) or callable(thing) else type(thing)
    return f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', kind)}"
