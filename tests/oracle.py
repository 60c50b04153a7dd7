"""What several tests compare with: a policy read one row at a time, without padding or batch."""

import torch

from quark.config import RewardTokens
from quark.models.lm import Policy
from quark.models.reward_tokens import LinearTokens, SinkTokens

EMBEDDING = RewardTokens(form="embedding")
LINEAR = RewardTokens(form="linear")
SINK = RewardTokens(form="sink", first_layer=1)


@torch.no_grad()
def plain_logits(policy: Policy, prompt: list[int], response: list[int]) -> torch.Tensor:
    """What predicts each token of `response` and the one after it, (time, V): the oracle.

    One row, no padding. An embedded reward token: one pass. At the sink: one token after another,
    and what the token adds to the cache is written out; a prompt of one token is read before that.
    """
    if not isinstance(policy.reward_tokens, SinkTokens) or prompt[0] < policy.vocabulary:
        ids = torch.tensor([prompt + response])
        return policy.lm(inputs_embeds=policy.embed(ids)).logits[0, len(prompt) - 1 :]
    (k, *prompt), tokens = prompt, policy.reward_tokens
    place = -1 + 2 * (k - policy.vocabulary) / max(1, tokens.count - 1)
    cache, logits = None, []
    for time, token in enumerate(prompt + response):
        if time == max(1, len(prompt) - 1):
            for i, (key, value) in enumerate(tokens.axis):
                layer = cache.layers[tokens.first_layer + i]
                layer.keys[0, :, 0] += place * tokens.deviation[i, 0] * key
                layer.values[0, :, 0] += place * tokens.deviation[i, 1] * value
        read = policy.lm(torch.tensor([[token]]), past_key_values=cache, use_cache=True)
        cache = read.past_key_values
        logits.append(read.logits[0, 0])
    return torch.stack(logits[len(prompt) - 1 :])


@torch.no_grad()
def steered_logits(
    policy: Policy, prompt: list[int], response: list[int], place: float
) -> torch.Tensor:
    """The same of linear reward tokens at a place, (time, V), float64, number by number."""
    ids = torch.tensor([prompt + response])
    states = policy.lm.base_model(ids).last_hidden_state[0, len(prompt) - 1 :]
    matrix, head = policy.reward_tokens.map.double().tolist(), policy.head.double()
    found = []
    for h in states.double().tolist():
        moved = [
            h[j] + place * sum(h[i] * matrix[i][j] for i in range(len(h))) for j in range(len(h))
        ]
        found.append([sum(m * e for m, e in zip(moved, row, strict=True)) for row in head.tolist()])
    return torch.tensor(found, dtype=torch.float64)


def under_token(policy: Policy, k: int, prompt: list[int], response: list[int]) -> torch.Tensor:
    """Logits (time, V) under reward token k, of any form."""
    if isinstance(policy.reward_tokens, LinearTokens):
        place = float(policy.reward_tokens.place[k])
        return steered_logits(policy, prompt, response, place).float()
    return plain_logits(policy, policy.condition(prompt, k), response)
