"""What a task wants of a text, and what is measured of it; `docs/adding-a-task.md` adds one.

Layer 4: imports no torch.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module

from quark.config import ConfigError
from quark.config.registry import TASKS as PLACES
from quark.tasks.task import Generations, Metric, Published, Task


@cache
def _load(place: str) -> Task:
    module, name = place.split(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"the task at {place} cannot be loaded: {error}") from error
    if not isinstance(found, Task):
        raise ConfigError(f"{place} is no Task")
    return found


class _Tasks(Mapping[str, Task]):
    """Tasks by their name, each loaded when it is asked for."""

    def __getitem__(self, name: str) -> Task:
        return _load(PLACES[name])

    def __iter__(self) -> Iterator[str]:
        return iter(PLACES)

    def __len__(self) -> int:
        return len(PLACES)


TASKS = _Tasks()

__all__ = ["TASKS", "Generations", "Metric", "Published", "Task"]
