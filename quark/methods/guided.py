"""Guided Quark: decode further out than the best reward token. Ours, not the paper's.

    logits = base + c/2 (policy under token 0 - policy under token K - 1)

A Quark policy has learned log p(y | x, quantile) for every quantile, so by Bayes' rule the bracket
is the log-odds of the best quantile against the worst, given the next token. The paper decodes
under the best token alone. Here the place c extrapolates, as classifier-free guidance does (Ho &
Salimans 2022, "Classifier-free diffusion guidance"), and DExperts with two models. c 0 is the base
model.

With linear reward tokens the formula is the policy at place c of its map, exactly: a plain model,
one pass for each token, its own nucleus. With embedded ones it takes three caches and three passes,
and as in DExperts the tokens drawn lie within the nucleus of the base model.
"""

from collections.abc import Sequence
from pathlib import Path

from quark import config
from quark.checkpoint import load_policy
from quark.config import Precision
from quark.decoding import Contrast, Decoder, Guided, Plain
from quark.lm import ModelError, load_model
from quark.reward_tokens import LinearTokens


def decoder(
    model: Path, parts: Sequence[Path], settings: config.Place, precision: Precision
) -> Decoder:
    """The policy whose checkpoint `parts` holds, at a place of its reward tokens.

    Raises:
        ModelError: the policy has no reward tokens.
    """
    policy = load_policy(model, parts[0], precision)
    if policy.reward_tokens is None:
        raise ModelError(f"{parts[0]}: holds no reward tokens to be guided by")
    if isinstance(policy.reward_tokens, LinearTokens):
        policy.steer(settings.place)
        return Plain(policy)
    best, worst = Plain(policy, 0), Plain(policy, policy.reward_tokens.count - 1)
    return Guided(load_model(model, precision), Contrast(best, worst, settings.place / 2))
