"""Unlearning repetition (paper section 3.3): the score is the diversity of a continuation.

A prompt is the beginning of a real text. The metrics measure the continuations (rep-n and
diversity, `quark.maths.ngrams`; coherence), and the model's predictions on the real ones (ppl, acc,
rep and wrep, `quark.metrics.repetition`). Shares are in per cent except diversity, as published.

Coherence is a continuation's mean log-likelihood per token under the judge, given its prompt, as
Su and Collier (2023, "Contrastive search is what you need for neural text generation") measure it
under a larger model (recalled). Repetitive text is likely, so read it together with diversity.
"""

from typing import Any

import numpy as np

from quark.maths.ngrams import ORDERS, counts
from quark.metrics.repetition import sums
from quark.metrics.scored import mean_by_prompt
from quark.tasks.task import Generations, Metric, Published, Task, Values, as_labelled


def by_prompt(made: Generations) -> dict[str, Values]:
    """Counts of n-grams in a prompt's generations, and of places in its real continuation.

    Raises:
        ValueError: the prompts have no real continuation.
    """
    real = made.predictions
    if real is None:
        raise ValueError("repetition is measured on real continuations: give predictions")
    found = {f"{kind}{n}": np.zeros(len(real)) for n in ORDERS for kind in ("repeated", "grams")}
    for prompt, text in zip(made.prompt, made.texts, strict=True):
        for n in ORDERS:
            distinct, every = counts(text.split(), n)
            found[f"repeated{n}"][prompt] += every - distinct
            found[f"grams{n}"][prompt] += every
    columns = (real[name].map(list) for name in ("predicted", "prompt_ids", "text_ids"))
    predicted = [sums(*row) for row in zip(*columns, strict=True)]
    found |= {name: np.array([text[name] for text in predicted]) for name in predicted[0]}
    return found | {
        "real_nll": real["nll"].to_numpy(),
        "coherence": mean_by_prompt(made.likelihoods, made.prompt),
    }


def _part(count: Values, every: Values) -> Values:
    """Share of `count` in `every`; 0 where there is nothing to count."""
    found = np.zeros(np.shape(every))
    return np.divide(count, every, out=found, where=np.asarray(every) > 0)


def rep(repeated: Values, grams: Values) -> Values:
    """rep-n in per cent, from the means of a prompt's repeated n-grams and of all; 0 if none."""
    return 100 * _part(repeated, grams)


def diversity(*means: Values) -> Any:
    """Product of 1 - rep-n over n; repeated and all n-grams in turn; 0 without any n-gram."""
    pairs = zip(means[::2], means[1::2], strict=True)
    return np.prod([_part(grams - repeated, grams) for repeated, grams in pairs], axis=0)


def perplexity(nll: Values, places: Values) -> Values:
    """exp(nll per token)."""
    return np.exp(nll / places)


def _share(column: str, header: str, note: str) -> Metric:
    return Metric((column, "places"), header, 2, note, rep)


TASK = Task(
    lambda diverse: diverse,
    by_prompt,
    metrics={
        "diversity": Metric(
            tuple(f"{kind}{n}" for n in ORDERS for kind in ("repeated", "grams")),
            "diversity",
            3,
            "product of 1 - rep-n, n = 2, 3, 4; n-grams of all continuations together",
            diversity,
        ),
        **{
            f"rep{n}": Metric(
                (f"repeated{n}", f"grams{n}"),
                f"rep-{n} %",
                2,
                f"{n}-grams that stood in their continuation before",
                rep,
            )
            for n in ORDERS
        },
        "coherence": Metric(
            ("coherence",),
            "coherence",
            3,
            "mean log-likelihood of a continuation's tokens under the judge, in nats",
        ),
        "ppl": Metric(
            ("real_nll", "places"), "ppl", 2, "of the real continuations, each token's", perplexity
        ),
        "acc": _share("right", "acc %", "places where the likeliest token is the real one"),
        "rep": _share("again", "rep %", "where it stood before, averaged over windows"),
        "wrep": _share("wrong_again", "wrep %", "where it did, and is not the real one"),
    },
    published=Published(
        table="quark_repetition_auto",
        splits={"test": "WikiText-103"},
        methods=as_labelled("MLE", "unlikelihood", "simctg", "quark", "quark_unlikelihood"),
        metrics=("diversity", "rep2", "rep3", "ppl", "acc", "rep", "wrep", "mauve"),
        note="GPT-2 base on WikiText-103; how it was decoded was not read, most likely greedily",
        decoding="greedy",
    ),
)
