"""Registries of named objects: this package's own, and those that other installed packages add.

Another package adds one by an entry point (https://packaging.python.org/specifications/entry-points):

    [project.entry-points."quark.methods"]
    taboo = "my_package:TABOO"

Groups: `quark.methods` (a `MethodSpec`, in a module that imports no torch), `quark.tasks` (a
`Task`, likewise) and `quark.scorers` (a function or class that makes a `Scorer`).
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import Any, TypeVar, cast

from quark.config.parsing import ConfigError
from quark.config.types import nearest

T = TypeVar("T")


class Plugins(Mapping[str, T]):
    """Objects by name. Reading the names loads nothing; an object is loaded when it is used.

    Args:
        group: of the entry points.
        built_in: this package's objects, or their places as `module:name`.
        kind: the type that an object of another package must have; None: any.
    """

    def __init__(
        self, group: str, built_in: Mapping[str, T | str], kind: type[T] | None = None
    ) -> None:
        self.group, self.built_in, self.kind = group, built_in, kind

    @cached_property
    def entries(self) -> dict[str, T | str]:
        """The objects that are loaded, and the places of the others.

        Raises:
            ConfigError: two objects have the same name.
        """
        found = dict(self.built_in)
        for point in entry_points(group=self.group):
            if point.name in found:
                raise ConfigError(
                    f"{self._point(point.name, point.value)}: this name is taken; uninstall or "
                    "rename one"
                )
            found[point.name] = point.value
        return found

    def __getitem__(self, name: str) -> T:
        """The object with this name.

        Raises:
            KeyError: there is none.
            ConfigError: another package's object cannot be loaded, or has the wrong type.
        """
        found = self.entries[name]
        if isinstance(found, str):
            found = self.entries[name] = self._load(name, found)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def known(self, name: str) -> str:
        """The same name, if an object has it.

        Raises:
            ValueError: no object has it; the text gives the most similar name.
        """
        if name not in self:
            what = self.group.split(".")[-1]
            raise ValueError(
                f"{name!r} is none of the {what}: {', '.join(self)}{nearest(name, self)}"
            )
        return name

    def _load(self, name: str, place: str) -> T:
        if name in self.built_in:
            return cast(T, resolve_name(place))
        try:
            found: Any = resolve_name(place)
        except Exception as error:  # any code of another package runs here
            raise ConfigError(
                f"{self._point(name, place)} cannot be loaded: {type(error).__name__}: {error}; "
                "repair or uninstall its package"
            ) from error
        if self.kind is not None and not isinstance(found, self.kind):
            raise ConfigError(f"{self._point(name, place)} is no {self.kind.__name__}")
        return cast(T, found)

    def _point(self, name: str, place: str) -> str:
        return f"entry point {name} = {place} in group {self.group}"
