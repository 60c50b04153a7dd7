"""Named things that this package has, and those that other installed packages add.

Another package adds one by an entry point (https://packaging.python.org/specifications/entry-points):

    [project.entry-points."quark.methods"]
    taboo = "my_package:TABOO"

Groups: `quark.methods` (a `MethodSpec`, in a module that imports no torch), `quark.tasks` (a
`Task`, likewise) and `quark.scorers` (what makes a `Scorer`).
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from quark.config.parsing import ConfigError

T = TypeVar("T")


class Plugins(Mapping[str, T]):
    """Things by their name; what other packages add is looked up when it is first asked for.

    Args:
        group: of the entry points.
        built_in: what this package has.
        of: what an entry point stands for.
    """

    def __init__(
        self, group: str, built_in: Mapping[str, T], of: Callable[[EntryPoint], T]
    ) -> None:
        self.group, self.built_in, self._of = group, built_in, of

    @cached_property
    def entries(self) -> dict[str, T]:
        """All of them.

        Raises:
            ConfigError: a name is taken, or a package's entry cannot be loaded.
        """
        found = dict(self.built_in)
        for point in entry_points(group=self.group):
            named = f"entry point {point.name} = {point.value} in group {self.group}"
            if point.name in found:
                raise ConfigError(f"{named}: this name is taken; uninstall or rename one")
            try:
                found[point.name] = self._of(point)
            except Exception as error:  # any code of another package runs here
                raise ConfigError(
                    f"{named} cannot be loaded: {type(error).__name__}: {error}; mend or uninstall "
                    "its package"
                ) from error
        return found

    def __getitem__(self, name: str) -> T:
        return self.entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)
