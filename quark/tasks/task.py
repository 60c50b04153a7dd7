"""The definition of a task: its reward, its metrics, and the paper's numbers for it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from quark.config.registry import spec
from quark.metrics.scored import mean_over_scored

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Generations:
    """A method's generations, and its predictions on real text.

    `prompt`: (n,) the prompt of each generation as a code from 0 on.
    `scores`: (n,) in [0, 1]; NaN where the scorer failed.
    `likelihoods`: (n,) mean log-likelihood of the tokens under the judge, given the prompt, in
    nats; NaN where there is no token.
    `texts`: (n,) without their prompts.
    `threshold`: scores strictly above it count.
    `second`: (n,) another scorer's scores; None: there is none.
    `predictions`: (prompts,) rows of `schemas.PREDICTIONS`; None: no real continuations.
    """

    prompt: NDArray[np.integer]
    scores: Values
    likelihoods: Values
    texts: Sequence[str]
    threshold: float
    second: Values | None = None
    predictions: pd.DataFrame | None = None


def mean(value: Values) -> Values:
    """The `value` of a metric that is a column's mean."""
    return value


@dataclass(frozen=True)
class Metric:
    """A function of columns' means over the prompts that have a value in all of them.

    `columns`: names of columns that `Task.by_prompt` makes.
    `header`, `digits`, `note`: in the rounded tables.
    `value`: function of the means, one or many of each; a ratio of sums is the ratio of the means.
    `optional`: no error if no prompt has a value, for example without a second scorer.
    `rounded`: whether the rounded tables show it; the CSV holds every metric.
    `share`: whether a prompt's value is 0 or 1, so that the metric is a share of prompts.
    `side`: it says what else changes; the rounded tables show it in a table of its own.
    """

    columns: tuple[str, ...]
    header: str
    digits: int
    note: str
    value: Callable[..., Any] = mean
    optional: bool = False
    rounded: bool = True
    share: bool = False
    side: bool = False

    def present(self, prompts: pd.DataFrame) -> list[Values]:
        """The columns of the prompts that have a value."""
        found = prompts[list(self.columns)].dropna()
        return [found[name].to_numpy(float) for name in self.columns]

    def over(self, prompts: pd.DataFrame) -> float | None:
        """The metric over a table of prompts; None if it is optional and none has a value.

        Raises:
            UnscoredError: no prompt has a value, but the metric is not optional.
        """
        if self.optional and not self.present(prompts)[0].size:
            return None
        return float(self.value(*map(mean_over_scored, self.present(prompts))))


ALL = "all"
"""The split name of a row over the prompts of all splits together."""


def as_labelled(base: str, *methods: str) -> dict[str, str]:
    """The paper's names of methods: `base` for the base model, the label for the others."""
    return {"base": base} | {name: spec(name).label for name in methods}


@dataclass(frozen=True)
class Published:
    """The place of the paper's numbers in `config/published/TASK.csv`.

    `table`: the name of the table there. `splits`, `methods`: its names for ours; those without a
    counterpart are left out. `metrics`: its columns, by our names. `note`: how they were measured.
    `decoding`: our name for the decoding that they were made with. `pooled`: metrics that it gives
    only for the prompts of all splits together, as the split `ALL`.
    """

    table: str
    splits: Mapping[str, str]
    methods: Mapping[str, str]
    metrics: tuple[str, ...]
    note: str
    decoding: str = "nucleus"
    pooled: tuple[str, ...] = ()

    @property
    def together(self) -> set[str]:
        """The splits whose prompts `pooled` is over; empty: there is no such metric."""
        return set(self.splits) - {ALL} if self.pooled else set()

    def given(self, split: str) -> tuple[str, ...]:
        """The metrics that it gives for a split."""
        return self.pooled if split == ALL else self.metrics


NOTHING_PUBLISHED = Published(table="", splits={}, methods={}, metrics=(), note="there are none")
"""For a task without published numbers; it needs no file."""


@dataclass(frozen=True)
class Task:
    """A task.

    `reward`: (n,) scores to rewards in [0, 1], higher is better.
    `by_prompt`: the measurements of each prompt, columns (prompts,); NaN: it has no value.
    `metrics`: made of those columns, the main one first.
    `published`: the paper's numbers.
    """

    reward: Callable[[Values], Values]
    by_prompt: Callable[[Generations], dict[str, Values]]
    metrics: Mapping[str, Metric]
    published: Published = field(default=NOTHING_PUBLISHED, repr=False)

    @property
    def columns(self) -> list[str]:
        """The columns of `by_prompt` that are in the table of prompts."""
        return list(dict.fromkeys(c for m in self.metrics.values() for c in m.columns))
