"""Sentiment (paper section 3.2): the score is how positive a text is, in [0, 1].

For steering to positive text the reward is the score, for steering to negative text 1 - score. In
both directions the metric is the percent of a prompt's generations that are positive, averaged over
prompts (DExperts; protocol 3). Fluency and diversity are published for all prompts together, so the
table also has rows of the split `all`.
"""

from dataclasses import replace

import numpy as np

from quark.metrics.scored import share_above
from quark.tasks.task import ALL, Generations, Metric, Published, Task, Values, as_labelled

POOLED = "neutral+adversarial_weighted_2to1"
"""All prompts together, twice as many neutral ones as others; fluency is published for these."""


def by_prompt(made: Generations) -> dict[str, Values]:
    """Percent of each prompt's generations with a score above the threshold; (prompts,)."""
    second = np.full_like(made.scores, np.nan) if made.second is None else made.second
    return {
        "pct_positive": 100 * share_above(made.scores, made.prompt, made.threshold),
        "pct_positive_second": 100 * share_above(second, made.prompt, made.threshold),
    }


POSITIVE = Task(
    lambda positivity: positivity,
    by_prompt,
    metrics={
        "pct_positive": Metric(
            ("pct_positive",),
            "% positive",
            2,
            "percent of a prompt's generations strictly above the threshold, averaged over prompts",
        ),
        "pct_positive_second": Metric(
            ("pct_positive_second",),
            "% positive, second",
            2,
            "the same by the second scorer; no method learns from it",
            optional=True,
        ),
    },
    published=Published(
        table="quark_sentiment_auto",
        splits={"negative": "negative_prompts", "neutral": "neutral_prompts", ALL: POOLED},
        methods=as_labelled("GPT2", "ctrl", "pplm", "gedi", "dexperts", "dapt", "ppo", "quark"),
        metrics=("pct_positive",),
        pooled=("output_ppl", "dist2", "dist3"),
        note="GPT-2 large, scored by a DistilBERT sentiment classifier, judged by GPT-2 XL",
    ),
)

NEGATIVE = replace(
    POSITIVE,
    reward=lambda positivity: 1 - positivity,
    published=replace(
        POSITIVE.published,
        splits={"positive": "positive_prompts", "neutral": "neutral_prompts", ALL: POOLED},
    ),
)
