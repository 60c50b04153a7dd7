"""Any reward in [0, 1]: the score of a text is its reward (`quark unlearn`).

The metrics are a prompt's mean reward, and the share of its generations with a reward strictly
above the threshold, both averaged over prompts. It is not an experiment of the paper.
"""

import numpy as np

from quark.metrics.scored import mean_by_prompt, share_above
from quark.tasks.task import Generations, Metric, Task, Values


def by_prompt(made: Generations) -> dict[str, Values]:
    """Mean reward, and percent above the threshold; (prompts,)."""
    second = np.full_like(made.scores, np.nan) if made.second is None else made.second
    return {
        "mean_reward": mean_by_prompt(made.scores, made.prompt),
        "pct_above": 100 * share_above(made.scores, made.prompt, made.threshold),
        "mean_reward_second": mean_by_prompt(second, made.prompt),
    }


TASK = Task(
    lambda score: score,
    by_prompt,
    metrics={
        "mean_reward": Metric(
            ("mean_reward",), "mean reward", 3, "of a prompt's generations, averaged over prompts"
        ),
        "pct_above": Metric(
            ("pct_above",),
            "% above",
            1,
            "percent of a prompt's generations with a reward strictly above the threshold, "
            "averaged over prompts",
        ),
        "mean_reward_second": Metric(
            ("mean_reward_second",),
            "mean reward, second",
            3,
            "the first column by the second scorer; no method learns from it",
            optional=True,
        ),
    },
)
