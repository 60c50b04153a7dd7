"""Output perplexity under a judge, the published way and two steadier ones (protocol 5).

Input is, for each generation, the negative log-likelihood of its response given its
prompt, summed over the response's tokens (nats), and the number of those tokens. A generation
without tokens is empty and has no perplexity; the official code leaves it out, and so do we.

    output ppl     mean over generations of exp(nll / tokens), values of 1e4 and more dropped:
                   Quark's perplexity.py and DExperts, hence the published tables
    median         median over generations of exp(nll / tokens), nothing dropped; ours
    exp mean nll   exp(sum of nll / sum of tokens), the perplexity of the whole text; ours
"""

import numpy as np
from numpy.typing import NDArray

CEILING = 1e4  # "for sanity", says the official code: perplexities from here on are dropped


def mean_nll(nll: NDArray[np.float64], tokens: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return nll / tokens, in nats, for each generation: NaN where it is empty."""
    mean = np.full(nll.shape, np.nan)
    np.divide(nll, tokens, out=mean, where=tokens > 0)
    return mean


def per_generation(nll: NDArray[np.float64], tokens: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return exp(nll / tokens) for each generation: NaN where it is empty, inf on overflow."""
    with np.errstate(over="ignore"):  # inf is above the ceiling, as it should be
        perplexity: NDArray[np.float64] = np.exp(mean_nll(nll, tokens))
    return perplexity


def counted(perplexities: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which generations the published mean counts: not empty and below the ceiling."""
    return perplexities < CEILING  # False for NaN


def output_ppl(sums: NDArray[np.float64], counts: NDArray[np.integer]) -> float | None:
    """Return the published mean over generations; None where none is counted.

    Args:
        sums: (prompts,) the sum of each prompt's counted perplexities.
        counts: (prompts,) how many they are.
    """
    return float(sums.sum() / counts.sum()) if counts.sum() else None


def median_ppl(perplexities: NDArray[np.float64]) -> float | None:
    """Return the median over generations that are not empty; None where all are."""
    present = perplexities[~np.isnan(perplexities)]
    return float(np.median(present)) if present.size else None


def exp_mean_nll(nll: NDArray[np.float64], tokens: NDArray[np.integer]) -> float | None:
    """Return exp(total nll / total tokens); None where all generations are empty."""
    total = int(tokens.sum())
    return float(np.exp(nll[tokens > 0].sum() / total)) if total else None
