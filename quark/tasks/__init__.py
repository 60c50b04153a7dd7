"""Tasks: the reward of a text and its metrics; `docs/adding-a-task.md` says how to add one.

It imports no torch.
"""

from quark.config import Plugins, registry
from quark.tasks.task import Generations, Metric, Published, Task

TASKS: Plugins[Task] = Plugins(registry.TASKS.group, registry.TASKS.built_in, Task)
"""Tasks by their names in the configuration, including those of other packages."""

__all__ = ["TASKS", "Generations", "Metric", "Published", "Task"]
