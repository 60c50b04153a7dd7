"""Guided Quark: the best reward token less the worst steers the base model. Ours, not the paper's.

    logits = base + alpha (policy under token 0 - policy under token K - 1)

A Quark policy has learnt log p(y | x, quantile) for every quantile, so by Bayes' rule the bracket
is what the next token tells of the best quantile against the worst: log-odds that no classifier had
to be trained for. The paper writes under the best token alone and so uses half of what was learnt.
Here alpha extrapolates, as classifier-free guidance does (Ho & Salimans 2022, "Classifier-free
diffusion guidance"), and DExperts with two models; as there, the tokens drawn lie within the
nucleus of the base law. alpha 0 is the base model.

It costs three caches and three passes for each token, where Quark costs one, and no training.
"""

from collections.abc import Sequence
from pathlib import Path

from quark import config
from quark.checkpoint import load_policy
from quark.config import Precision
from quark.decoding import Contrast, Decoder, Guided, Plain
from quark.lm import ModelError, load_model


def decoder(
    model: Path, parts: Sequence[Path], settings: config.Contrast, precision: Precision
) -> Decoder:
    """The base model under the best and worst token of the policy whose checkpoint `parts` holds.

    Raises:
        ModelError: the policy has no reward tokens.
    """
    policy = load_policy(model, parts[0], precision)
    if policy.reward_tokens is None:
        raise ModelError(f"{parts[0]}: holds no reward tokens to be guided by")
    best, worst = Plain(policy, 0), Plain(policy, policy.reward_tokens.count - 1)
    return Guided(load_model(model, precision), Contrast(best, worst, settings.alpha))
