"""What a task wants of a text, and what is measured of it; `docs/adding-a-task.md` adds one.

Layer 4: imports no torch.
"""

from quark.tasks import repetition, sentiment, toxicity
from quark.tasks.task import Generations, Metric, Published, Task

TASKS: dict[str, Task] = {
    "toxicity": toxicity.TASK,
    "sentiment_positive": sentiment.POSITIVE,
    "sentiment_negative": sentiment.NEGATIVE,
    "repetition": repetition.TASK,
}

__all__ = ["TASKS", "Generations", "Metric", "Published", "Task"]
