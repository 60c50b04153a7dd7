"""What makes a task: its reward, what is measured of its scores, and the paper's numbers for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

ByPrompt = Callable[[Values, NDArray[np.integer], float], dict[str, Values]]
"""Scores (n,) in [0, 1] or NaN, prompt codes (n,) from 0 on, threshold: columns (prompts,)."""


@dataclass(frozen=True)
class Metric:
    """A column's mean over the prompts that have a value.

    `column`: of those that `Task.by_prompt` makes.
    `header`, `digits`, `note`: in the rounded tables.
    """

    column: str
    header: str
    digits: int
    note: str


@dataclass(frozen=True)
class Published:
    """Where the paper's numbers stand in `config/published/TASK.csv`.

    `table`: the name of the table there. `splits`, `methods`: what it calls ours; those without a
    counterpart are left out. `metrics`: its columns, by our names. `note`: how they were measured.
    """

    table: str
    splits: Mapping[str, str]
    methods: Mapping[str, str]
    metrics: tuple[str, ...]
    note: str


@dataclass(frozen=True)
class Task:
    """A task.

    `reward`: (n,) scores to rewards in [0, 1], higher is better.
    `by_prompt`: what is measured of each prompt's scores; NaN: none of them has one.
    `metrics`: the means of those columns by name, the one that matters most first.
    `published`: the paper's numbers.
    """

    reward: Callable[[Values], Values]
    by_prompt: ByPrompt
    metrics: Mapping[str, Metric]
    published: Published = field(repr=False)

    @property
    def columns(self) -> list[str]:
        """The columns of `by_prompt` that stand in the table of prompts."""
        return [metric.column for metric in self.metrics.values()]
