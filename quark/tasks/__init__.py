"""What a task wants of a text, and what is measured of it; `docs/adding-a-task.md` adds one.

It imports no torch.
"""

from quark.config import Plugins, registry
from quark.tasks.task import Generations, Metric, Published, Task

TASKS: Plugins[Task] = Plugins(registry.TASKS.group, registry.TASKS.built_in, Task)
"""By the names that `tasks` has in the configuration; also those of other packages."""

__all__ = ["TASKS", "Generations", "Metric", "Published", "Task"]
