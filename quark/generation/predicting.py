"""Predict real text: the likeliest token at each place, and the text's likelihood.

Any decoder can be used: it reads a prompt and then the text's own tokens, one by one. So a guided
method predicts with its guided distribution, without nucleus or temperature. The softmax is
float32.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from quark.generation.decoding import Decoder
from quark.generation.sampler import batches
from quark.models.lm import pad
from quark.models.memory import within_memory


class Predicted(NamedTuple):
    """A text's prediction.

    `place`: index of the text among those given.
    `ids`: the likeliest token in each of its places.
    `nll`: -log p(text | prompt), in nats.
    """

    place: int
    ids: list[int]
    nll: float


@torch.no_grad()
def predict(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    texts: Sequence[Sequence[int]],
    names: Sequence[str],
    *,
    memory_mb: int,
) -> Iterator[Predicted]:
    """Predict each text after its prompt.

    Args:
        decoder: the decoder that predicts, its models in evaluation mode.
        prompts: token ids of each prompt, its reward token included.
        texts: token ids of each text, one at least.
        names: one for each prompt, for errors.
        memory_mb: bounds the rows read together.

    Yields:
        Each text's prediction once, in any order.

    Raises:
        PromptLengthError: a prompt is empty, or leaves too little room.
    """
    longest = max(map(len, texts))

    def together(places: Sequence[int]) -> list[Predicted]:
        decoding = decoder.read([prompts[i] for i in places])
        ids, real = pad([texts[i] for i in places], "right")
        guesses, nll = torch.zeros_like(ids), torch.zeros(len(places), dtype=torch.float64)
        for time in range(ids.shape[1]):
            log_p = decoding.next_token().logits.float().log_softmax(-1)
            guesses[:, time] = log_p.argmax(-1)
            chosen = log_p.gather(-1, ids[:, time, None]).squeeze(-1).cpu().double()
            nll -= torch.where(real[:, time].cpu(), chosen, 0)
            if time + 1 < ids.shape[1]:
                decoding.feed(ids[:, time])
        rows = zip(places, guesses.tolist(), nll.tolist(), strict=True)
        return [Predicted(place, row[: len(texts[place])], total) for place, row, total in rows]

    for _, found in within_memory(
        together, batches(decoder, prompts, names, 1, longest, memory_mb)
    ):
        yield from found
