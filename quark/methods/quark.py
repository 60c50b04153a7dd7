"""Learn: train the policy on each quantile of the pool under its reward token.

The third step of Quark (Lu et al. 2022, section 2; official `main.py`, `ConditionTrainer`). The
first two, explore and quantize, are `quark.generation.sampler` and `quark.stages.quantize`; the
loss is in `quark.maths.objective`.

With linear reward tokens the language model is frozen. Policy and base model then share their last
hidden states, which sampling kept (`quark.models.reference_cache`), so training reads no text.

Departures (see `docs/departures.md`): token ids are trained on as they were sampled, end id
included; no batch is ever dropped; gradients can be clipped; the reward tokens have their own
learning rate; a few prompts are held out of training, on which `token_gap` measures what the tokens
learned; rows of a quantile whose linear token is the base model have no gradient and are left out.
"""

import logging
from functools import partial

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from quark.config import ConfigError, Precision, Training
from quark.core.progress import track
from quark.core.seeds import ranks, stream
from quark.generation.logprobs import response_logprobs
from quark.maths.objective import Coefficients, fused_token_loss, shifted_logprobs
from quark.models.checkpoint import Moments
from quark.models.decode_state import check_lengths, response_hidden
from quark.models.lm import DTYPES, Policy
from quark.models.memory import rows_for_training
from quark.models.reference_cache import ReferenceCache
from quark.models.reward_tokens import LinearTokens
from quark.training.trainer import Rows, Trainer, autocast, choose_parameters, deal

log = logging.getLogger(__name__)

GAP_ROWS = 128
"""Held-out rows of the best and of the worst quantile that `token_gap` reads at most."""


def split_pool(pool: pa.Table, held_out_prompts: int, seed: int) -> tuple[Rows, Rows]:
    """The rows to train on, and those of `held_out_prompts` prompts held out in every iteration.

    The held-out prompts are the first of the pool's prompts in the order of a hash. A pool keeps
    the prompts of the pool before, so a prompt used in training is never held out later. A prompt
    enters late if scoring failed for all its first samples; it may then replace a held-out prompt.

    Raises:
        ConfigError: no row is left to train on.
    """
    prompt_ids = pool["prompt_id"].to_pylist()
    prompts = sorted(set(prompt_ids))
    order = np.argsort(ranks(f"gauge/{seed}", prompts))
    held_out = {prompts[i] for i in order[:held_out_prompts]}
    rows = Rows(
        pool["row_id"].to_pylist(),
        pool["prompt_ids"].to_pylist(),
        pool["response_ids"].to_pylist(),
        pool["quantile"].to_numpy(),
    )
    is_held_out = np.array([prompt in held_out for prompt in prompt_ids])
    if is_held_out.all():
        raise ConfigError(
            f"training.held_out_prompts = {held_out_prompts} leaves none of the pool's "
            f"{len(prompts)} prompts to train on"
        )
    return (
        rows.take(np.flatnonzero(~is_held_out).tolist()),
        rows.take(np.flatnonzero(is_held_out).tolist()),
    )


def learn(
    policy: Policy,
    base: Policy,
    rows: Rows,
    training: Training,
    *,
    iteration: int,
    iterations: int,
    precision: Precision,
    seed_name: str,
    memory_mb: int,
    cache: ReferenceCache | None,
    resume: tuple[Moments, int] | None,
) -> tuple[Moments, int, list[dict[str, float]]]:
    """Train `policy` in place for one iteration.

    Args:
        policy: with K reward tokens; trained parameters are float32.
        base: the frozen model that the KL penalty keeps the policy near.
        rows: what to train on.
        training: sizes, rates and weights.
        iteration: 0, 1, ...; the learning rate decays over all `iterations`.
        iterations: how many there are.
        precision: bf16: matrix products in bfloat16 (autocast), the rest in float32.
        seed_name: seed, task, method and iteration.
        memory_mb: bounds the rows of a micro-batch.
        cache: the base model's hidden states of rows; missing ones are added. None: keep none.
        resume: the optimiser's moments and step after the iteration before.

    Returns:
        The optimiser's moments and step, and for each step its loss and terms in nats per token.

    Raises:
        NonFiniteLossError: the loss is infinite or NaN.
    """
    choose_parameters(policy.lm, training.trained_layers, training.gradient_checkpointing)
    tokens = policy.reward_tokens
    silent = tokens.silent if isinstance(tokens, LinearTokens) else None
    order = training_order(rows.label, training, stream(seed_name, "order"), silent)
    batches = [order[i : i + training.batch].tolist() for i in range(0, len(order), training.batch)]
    lengths = [len(p) + len(r) for p, r in zip(rows.prompts, rows.responses, strict=True)]
    check_lengths(policy, conditioned(policy, rows), rows.ids, max(rows.lengths.tolist()))
    micro_batch = rows_for_training(
        policy, base, max(lengths) + 1, memory_mb, training.gradient_checkpointing
    )
    rates = {"reward_tokens": training.token_learning_rate, "lm": training.learning_rate}
    trainer = Trainer(
        policy,
        training,
        lambda name: rates[name.split(".")[0]],
        total_steps=iterations * len(batches),
        lengths=lengths,
        micro_batch=micro_batch,
        resume=resume,
    )
    objective = _Objective(policy, base, training, precision, cache)
    log.info("%d steps of %d rows, from a pool of %d", len(batches), training.batch, len(rows.ids))
    curve = []
    for batch in track(batches, f"train {iteration}"):
        count = sum(len(rows.responses[i]) for i in batch)
        terms = trainer.step(batch, count, rows.ids, lambda part: objective(rows.take(part)))
        rate = terms.pop("rate_factor") * training.token_learning_rate
        curve.append({**terms, "tokens": count, "token_learning_rate": rate})
    policy.eval()  # checkpointed layers were in training mode, without a cache
    return trainer.moments, trainer.taken, curve


def training_order(
    quantile: NDArray[np.int32],
    training: Training,
    rng: np.random.Generator,
    silent: int | None = None,
) -> NDArray[np.int64]:
    """The places of `training.sequences` rows, in the order they are trained on.

    Rows are drawn evenly from the whole pool, or by `training.quantile_shares`; no row repeats
    until all rows of its kind have been used.

    Args:
        quantile: (n,) of each row.
        training: sizes and shares.
        rng: of the order.
        silent: a quantile without gradient, whose rows are left out; the others take its share.

    Raises:
        ConfigError: a quantile with a share has no row.
    """
    if training.quantile_shares is None:
        return deal(np.flatnonzero(quantile != silent), training.sequences, rng)
    shares = np.array(training.quantile_shares)
    if silent is not None:
        shares[silent] = 0
    bounds = np.round(np.cumsum([0.0, *shares / shares.sum()]) * training.sequences).astype(int)
    dealt = []
    for k, count in enumerate(np.diff(bounds).tolist()):
        places = np.flatnonzero(quantile == k)
        if count and not len(places):
            raise ConfigError(
                f"training.quantile_shares asks for {count} rows of quantile {k}, but all of its "
                "rows belong to held-out prompts: lower training.held_out_prompts"
            )
        dealt.append(deal(places, count, rng))
    return rng.permutation(np.concatenate(dealt))


def token_gap(
    policy: Policy,
    base: Policy,
    held_out: Rows,
    k: int,
    precision: Precision,
    seed_name: str,
    memory_mb: int,
    cache: ReferenceCache,
) -> dict[str, float] | None:
    """Log-probability gap, in nats per response, between the right and the wrong reward token.

    `best`: held-out rows of quantile 0 under token 0, less the same under token K - 1; `worst`:
    rows of quantile K - 1 under token K - 1, less the same under token 0. A token that gave
    perfect information on its quantile would gain ln K over no token. `_se` is the standard error;
    rows of one prompt count as dependent. None without reward tokens, or without held-out rows of
    two prompts of each kind.
    """
    if policy.reward_tokens is None:
        return None
    found: dict[str, float] = {}
    for name, right, wrong in (("best", 0, k - 1), ("worst", k - 1, 0)):
        places = np.flatnonzero(held_out.label == right)
        order = np.argsort(ranks(f"{seed_name}/gauge", [held_out.ids[i] for i in places]))
        rows = held_out.take(places[order[:GAP_ROWS]].tolist())
        prompts = np.array([hash(tuple(prompt)) for prompt in rows.prompts])
        if len(set(prompts.tolist())) < 2:
            return None
        under = partial(_logprobs, policy, base, rows, precision, memory_mb, cache)
        gain = under(right) - under(wrong)
        found[name] = float(gain.mean())
        found[f"{name}_se"] = _clustered_error(gain, prompts)
    return found


def _logprobs(
    policy: Policy,
    base: Policy,
    rows: Rows,
    precision: Precision,
    memory_mb: int,
    cache: ReferenceCache,
    token: int,
) -> NDArray[np.float64]:
    """Log p of each row's response under one reward token, (rows,), in nats."""
    tokens = policy.reward_tokens
    if isinstance(tokens, LinearTokens):
        hidden = cache.of(base, rows.ids, rows.prompts, rows.responses)
        with torch.no_grad():
            shift = tokens.shift(hidden, tokens.place[token]).to(DTYPES[precision])
            targets = rows.targets(hidden.device)
            found = shifted_logprobs(shift, policy.head, targets, hidden)[0]
        return rows.sums(found).double().cpu().numpy()
    with autocast(policy, precision):
        logprobs = response_logprobs(
            policy,
            [policy.condition(prompt, token) for prompt in rows.prompts],
            [[response] for response in rows.responses],
            names=rows.ids,
            memory_mb=memory_mb,
        )
    return np.concatenate(logprobs)


def _clustered_error(values: NDArray[np.float64], cluster: NDArray[np.int64]) -> float:
    """Standard error of the mean when values of one cluster may depend on each other."""
    _, place = np.unique(cluster, return_inverse=True)
    sums = np.bincount(place, weights=values - values.mean())
    return float(np.sqrt(len(sums) / (len(sums) - 1) * np.square(sums).sum()) / len(values))


def conditioned(policy: Policy, rows: Rows) -> list[list[int]]:
    """Each row's prompt under the reward token of the row's quantile, if there are tokens."""
    if policy.reward_tokens is None:
        return rows.prompts
    pairs = zip(rows.prompts, rows.label.tolist(), strict=True)
    return [policy.condition(prompt, k) for prompt, k in pairs]


class _Objective:
    """The objective summed over the response tokens of some rows."""

    def __init__(
        self,
        policy: Policy,
        base: Policy,
        training: Training,
        precision: Precision,
        cache: ReferenceCache | None,
    ) -> None:
        self.policy, self.base = policy, base
        self.precision = precision
        self.cache = cache
        self.weigh = Coefficients(training.kl_coef, training.entropy_coef, training.kl_direction)

    def __call__(self, rows: Rows) -> dict[str, Tensor]:
        cache = ReferenceCache() if self.cache is None else self.cache
        base_hidden = cache.of(self.base, rows.ids, rows.prompts, rows.responses)
        hidden = self._hidden(rows, base_hidden)
        total, terms = fused_token_loss(
            hidden.to(DTYPES[self.precision]),
            self.policy.head,
            base_hidden,
            self.base.head,
            rows.targets(hidden.device),
            self.weigh,
            is_shift=isinstance(self.policy.reward_tokens, LinearTokens),
        )
        sums = {"lm_loss": terms.lm, "kl": terms.kl, "entropy": terms.entropy}
        return {"loss": total, **{name: term.sum() for name, term in sums.items()}}

    def _hidden(self, rows: Rows, base_hidden: Tensor) -> Tensor:
        """Last hidden states (tokens, d) under each row's reward token; if linear, the shift."""
        tokens = self.policy.reward_tokens
        if isinstance(tokens, LinearTokens):
            place = tokens.place[torch.from_numpy(rows.label).long().to(base_hidden.device)]
            return tokens.shift(base_hidden, place.repeat_interleave(rows.lengths.to(place.device)))
        with autocast(self.policy, self.precision):
            return response_hidden(self.policy, conditioned(self.policy, rows), rows.responses)
