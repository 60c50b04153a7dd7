"""Named things that this package has, and those that other installed packages add.

Another package adds one by an entry point (https://packaging.python.org/specifications/entry-points):

    [project.entry-points."quark.methods"]
    taboo = "my_package:TABOO"

Groups: `quark.methods` (a `MethodSpec`, in a module that imports no torch), `quark.tasks` (a
`Task`, likewise) and `quark.scorers` (what makes a `Scorer`).
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
    """Things by their name. The names load nothing; a thing is loaded when it is asked for.

    Args:
        group: of the entry points.
        built_in: what this package has: things, or where they are, as `module:name`.
        kind: what a thing of another package must be; None: anything.
    """

    def __init__(
        self, group: str, built_in: Mapping[str, T | str], kind: type[T] | None = None
    ) -> None:
        self.group, self.built_in, self.kind = group, built_in, kind

    @cached_property
    def entries(self) -> dict[str, T | str]:
        """Things that are loaded, and where the others are.

        Raises:
            ConfigError: a name is taken.
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
        """The thing of this name.

        Raises:
            KeyError: there is none.
            ConfigError: another package's cannot be loaded, or is not of the kind.
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
        """The name.

        Raises:
            ValueError: nothing has it; the text names the one most like it.
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
                "mend or uninstall its package"
            ) from error
        if self.kind is not None and not isinstance(found, self.kind):
            raise ConfigError(f"{self._point(name, place)} is no {self.kind.__name__}")
        return cast(T, found)

    def _point(self, name: str, place: str) -> str:
        return f"entry point {name} = {place} in group {self.group}"
