"""Plain versions of the published loops; the benchmarks compare the fast code with them.

Each function does the whole work correctly but without optimisation, as the official code does it
(Quark's `main.py` and `policy.py`, DExperts' generation and perplexity scripts; see performance
notes in `docs/performance.md`): float32, every sample reads its own prompt, the head is applied at
every position, top-p sorts the vocabulary, perplexity reads one text at a time. The functions are
also oracles: the tests compare the fast code with them.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from quark.models.lm import pad

PROMPTS_AT_A_TIME = 4
"""Number of prompts whose samples the official loop draws together."""


@torch.no_grad()
def sample(
    lm: PreTrainedModel, prompts: Sequence[Sequence[int]], samples: int, time: int, top_p: float
) -> list[list[int]]:
    """Return `samples` continuations of `time` tokens for each prompt; only the number matters."""
    written: list[list[int]] = []
    for start in range(0, len(prompts), PROMPTS_AT_A_TIME):
        repeated = [p for p in prompts[start : start + PROMPTS_AT_A_TIME] for _ in range(samples)]
        ids, real = pad(repeated, "left")
        cache, new = None, ids
        for _ in range(time):
            position = (real.cumsum(-1) - 1).clamp(min=0)[:, -new.shape[1] :]
            read = lm(
                new,
                attention_mask=real,
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
            )
            cache = read.past_key_values
            logits = _nucleus(read.logits[:, -1], top_p)
            new = torch.multinomial(logits.softmax(-1), 1)
            functional.log_softmax(logits, dim=-1).gather(-1, new)
            ids = torch.cat([ids, new], dim=1)
            real = torch.cat([real, torch.ones_like(new, dtype=torch.bool)], dim=1)
        written += ids[:, -time:].tolist()
    return written


def _nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Return logits (rows, V) with -inf outside the nucleus, which is found by sorting."""
    ordered, places = logits.sort(-1, descending=True)
    beyond = ordered.softmax(-1).cumsum(-1) > top_p
    beyond = functional.pad(beyond[:, :-1], (1, 0), value=False)  # the token that crosses p stays
    return logits.masked_fill(beyond.scatter(-1, places, beyond), -torch.inf)


@torch.no_grad()
def logprob(lm: PreTrainedModel, prompt: Sequence[int], response: Sequence[int]) -> float:
    """Return a response's log-probability in nats, from two passes, as DExperts computes it."""
    sums = []
    for ids in ([*prompt, *response], prompt):
        text = torch.tensor([list(ids)], device=lm.device)
        mean = lm(text, labels=text).loss if len(ids) > 1 else torch.zeros(())
        sums.append(float(mean) * (len(ids) - 1))
    return sums[1] - sums[0]


def train_step(
    policy: PreTrainedModel,
    base: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    kl_coef: float,
    entropy_coef: float,
) -> float:
    """Take one optimiser step on Quark's objective with the logits of all positions.

    Args:
        policy: the model that is trained; the reward token's id is the prompt's first id.
        base: the frozen model; it reads the prompts without their first id.
        optimizer: the optimiser of the policy.
        prompts: token ids, with the reward token.
        responses: token ids.
        kl_coef: the coefficient beta.
        entropy_coef: the coefficient alpha.

    Returns:
        The loss.
    """
    ids, real = pad([[*p, *r] for p, r in zip(prompts, responses, strict=True)], "right")
    answer = real.clone()
    for row, prompt in enumerate(prompts):
        answer[row, : len(prompt)] = False
    mask = answer[:, 1:]
    targets = ids[:, 1:]
    log_p = policy(ids, attention_mask=real).logits.log_softmax(-1)[:, :-1]
    with torch.no_grad():
        base_logits = base(ids[:, 1:], attention_mask=real[:, 1:]).logits
        log_q = functional.pad(base_logits.log_softmax(-1), (0, 0, 1, 0))[:, :-1]
    lm = -log_p.gather(-1, targets[..., None]).squeeze(-1)
    kl = functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
    entropy = torch.distributions.Categorical(logits=log_p).entropy()
    loss = ((lm + kl_coef * kl - entropy_coef * entropy) * mask).sum() / mask.sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def quantiles(rewards: Sequence[float], rows: Sequence[object], k: int) -> list[int]:
    """Return each row's quantile by sorting tuples; the pool is copied, as the official one is."""
    pool = copy.deepcopy(list(zip(rewards, range(len(rewards)), rows, strict=True)))
    pool = sorted(pool, key=lambda entry: entry[0], reverse=True)
    found = [0] * len(pool)
    for place, (_, row, _) in enumerate(pool):
        found[row] = place * k // len(pool)
    return found
