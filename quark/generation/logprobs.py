"""Log-probabilities of responses: one function for the judge, the token gap and the baselines.

Responses of one prompt share its prefix: the prompt is read once, its cache copied to its
responses, and the output head is applied to response positions only. The softmax is float32 at
any precision of the model.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from quark.core.shards import WHOLE, Shard, batched
from quark.generation.sampler import MAX_ROWS
from quark.models.decode_state import check_lengths, read, response_hidden
from quark.models.lm import ModelError, Policy
from quark.models.memory import rows_for_sampling, within_memory


@torch.inference_mode()
def response_logprobs(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[Sequence[int]]],
    *,
    names: Sequence[str],
    memory_mb: int,
    shard: Shard = WHOLE,
) -> list[NDArray[np.float64]]:
    """Log p(response | prompt) in nats, summed over the response's tokens; 0 for an empty one.

    Args:
        policy: the model, in evaluation mode.
        prompts: token ids of each prompt, its reward token included.
        responses: token ids of the responses to each prompt.
        names: one for each prompt, for errors.
        memory_mb: bounds the rows read together.
        shard: only responses to its prompts are read; a value is the same in any shard.

    Returns:
        For each prompt an array of shape (its responses,); NaN if the prompt is in another shard.

    Raises:
        PromptLengthError: a prompt is too short, or leaves too little room.
        ModelError: a likelihood is not finite.
    """
    longest = max((len(r) for several in responses for r in several), default=0)
    check_lengths(policy, prompts, names, longest)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    widest = len(prompts[order[-1]]) + longest
    room = rows_for_sampling([policy], widest, memory_mb)
    sizes = [len(several) for several in responses]
    found = [np.full(len(several), np.nan) for several in responses]

    def together(places: Sequence[int]) -> list[NDArray[np.float64]]:
        counts = [sizes[i] for i in places]
        flat = [list(r) for i in places for r in responses[i]]
        sums = _logprobs(policy, [prompts[i] for i in places], counts, flat)
        return np.split(sums, np.cumsum(counts)[:-1])

    shared_out = shard.of(_batches(order, sizes, MAX_ROWS))
    batches = (batch for part in shared_out for batch in _batches(part, sizes, room))
    for places, several in within_memory(together, batches):
        for place, sums in zip(places, several, strict=True):
            if not np.isfinite(sums).all():
                raise ModelError(
                    f"prompt {names[place]}: a response's likelihood is not finite; try "
                    "precision: fp32"
                )
            found[place] = sums
    return found


@torch.inference_mode()
def text_features(
    policy: Policy, texts: Sequence[Sequence[int]], memory_mb: int
) -> NDArray[np.float32]:
    """The last hidden state of each text's last token, (texts, d).

    Args:
        policy: the model, in evaluation mode.
        texts: token ids, one at least in each.
        memory_mb: bounds the texts read together.
    """
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    longest = len(texts[order[-1]])
    room = min(MAX_ROWS, rows_for_sampling([policy], longest, memory_mb))
    found = np.empty((len(texts), policy.head.shape[1]), dtype=np.float32)

    def together(places: Sequence[int]) -> NDArray[np.float32]:
        hidden: NDArray[np.float32] = (
            read(policy, [texts[i] for i in places]).hidden.float().cpu().numpy()
        )
        return hidden

    for places, hidden in within_memory(together, batched(order, room)):
        found[list(places)] = hidden
    return found


def _batches(order: Sequence[int], counts: Sequence[int], room: int) -> list[list[int]]:
    """Cut `order` into runs of at most `room` responses; a prompt's responses stay together."""
    batches: list[list[int]] = []
    rows = room
    for place in order:
        if rows + counts[place] > room:
            batches.append([])
            rows = 0
        batches[-1].append(place)
        rows += counts[place]
    return batches


def _logprobs(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    counts: Sequence[int],
    responses: Sequence[Sequence[int]],
) -> NDArray[np.float64]:
    """Summed log-probabilities (responses,); prompt i has the next `counts[i]` of `responses`."""
    if not any(map(len, responses)):
        return np.zeros(len(responses))
    owner = np.repeat(np.arange(len(prompts)), counts).tolist()
    hidden = response_hidden(policy, prompts, responses, owner)
    lengths = torch.tensor(list(map(len, responses)))
    rows = torch.arange(len(responses)).repeat_interleave(lengths).to(hidden.device)
    targets = torch.tensor([token for ids in responses for token in ids], device=hidden.device)
    total = torch.zeros(len(responses), dtype=torch.float64, device=hidden.device)
    for start in range(0, len(rows), 512):
        part = slice(start, start + 512)
        log_p = (hidden[part] @ policy.head.T).float().log_softmax(-1)
        chosen = log_p.gather(-1, targets[part, None]).squeeze(-1)
        total.index_add_(0, rows[part], chosen.double())
    return total.cpu().numpy()
