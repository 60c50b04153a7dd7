"""The policy of a method that learns from its own samples, such as PPO.

With linear reward tokens the policy is one map of the frozen model's last hidden states, so that
these states serve the policy and the base model alike.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from quark.config import Precision
from quark.core.progress import track
from quark.core.shards import batched
from quark.maths.objective import Forbidden, shifted_logprobs, token_logprobs
from quark.models.decode_state import response_hidden
from quark.models.lm import DTYPES, Policy
from quark.models.reference_cache import ReferenceCache
from quark.models.reward_tokens import LinearTokens
from quark.training.rounds import Round
from quark.training.trainer import Rows, autocast


class Actor(nn.Module):
    """A policy that learns from its own samples: their log-probabilities, as they were sampled.

    Args:
        policy: the policy.
        min_new_tokens: of sampling: end ids are impossible in so many first tokens.
    """

    def __init__(self, policy: Policy, min_new_tokens: int = 0) -> None:
        super().__init__()
        self.policy, self.min_new_tokens = policy, min_new_tokens

    @property
    def is_linear(self) -> bool:
        """Whether a linear map of the frozen base model's hidden states is the policy."""
        return isinstance(self.policy.reward_tokens, LinearTokens)

    def hidden(self, rows: Rows, how: Precision, cache: ReferenceCache) -> Tensor:
        """The model's last hidden states (tokens, d) that predict the responses, row after row.

        Args:
            rows: prompts and responses.
            how: of matrix products.
            cache: the frozen model's states are read from it, and added to it if missing.
        """
        if self.is_linear:
            return cache.of(self.policy, rows.ids, rows.prompts, rows.responses)
        with autocast(self.policy, how):
            return response_hidden(self.policy, self.prompts(rows), rows.responses)

    def prompts(self, rows: Rows) -> list[list[int]]:
        """Each row's prompt with the reward token, if its form precedes a prompt."""
        return [self.policy.condition(prompt, 0) for prompt in rows.prompts]

    def logprob(self, hidden: Tensor, rows: Rows, how: Precision) -> Tensor:
        """Log p (nats) of each response token, (tokens,), given `hidden` of the same rows.

        End ids are impossible where they were in sampling.
        """
        if self.is_linear:
            return self._shifted(hidden, rows, how, times=(1,))[0]
        targets, forbidden = rows.targets(hidden.device), self.forbidden(rows)
        head = self.policy.head
        return token_logprobs(hidden.to(DTYPES[how]), head, targets, forbidden=forbidden)

    def logprob_now(self, rows: Rows, given: Round) -> Tensor:
        """`logprob` of some rows of a round under the policy as it is now, (tokens,)."""
        return self.logprob(self.hidden(rows, given.precision, given.cache), rows, given.precision)

    def logprob_and_base(
        self, hidden: Tensor, base: Policy, rows: Rows, how: Precision
    ) -> tuple[Tensor, Tensor]:
        """`logprob`, and the same under the base model, (tokens,) each."""
        if self.is_linear:
            times = (1, 0) if self._has_learnt else (0,)
            found = self._shifted(hidden, rows, how, times)
            return found[0], found[-1]
        ref = token_logprobs(
            response_hidden(base, rows.prompts, rows.responses),
            base.head,
            rows.targets(hidden.device),
            forbidden=self.forbidden(rows),
        )
        return self.logprob(hidden, rows, how), ref

    def measured(
        self, hidden: Tensor, base: Policy, rows: Rows, how: Precision
    ) -> tuple[Tensor, ...]:
        """What a rollout keeps of each response token, (tokens,) each."""
        return self.logprob_and_base(hidden, base, rows, how)

    @torch.no_grad()
    def roll_out(self, given: Round, batch: int) -> tuple[Tensor, ...]:
        """`measured` of all rows of a round under the policy that sampled them.

        Args:
            given: the round.
            batch: rows read together.
        """
        rows = given.rows
        order = sorted(range(len(rows.ids)), key=lambda i: len(rows.prompts[i]))
        of_row: dict[int, tuple[Tensor, ...]] = {}
        for places in track(list(batched(order, batch)), "roll out"):
            part = rows.take(places)
            if given.cache.missing(part.ids):
                hidden = self.hidden(part, given.precision, given.cache)
            else:
                hidden = given.cache.get(part.ids, self.policy.head.device)
            found = self.measured(hidden, given.base, part, given.precision)
            each = (values.float().split(part.lengths.tolist()) for values in found)
            of_row |= dict(zip(places, zip(*each, strict=True), strict=True))
        return tuple(map(torch.cat, zip(*(of_row[i] for i in range(len(order))), strict=True)))

    @property
    def _has_learnt(self) -> bool:
        """Whether the linear map differs from zero, which is the base model."""
        return bool(cast(LinearTokens, self.policy.reward_tokens).map.any())

    def _shifted(self, hidden: Tensor, rows: Rows, how: Precision, times: Sequence[int]) -> Tensor:
        """Log p (len(times), tokens) with the map's shift multiplied by each of `times`."""
        tokens = cast(LinearTokens, self.policy.reward_tokens)
        return shifted_logprobs(
            tokens.shift(hidden, tokens.place[0]).to(DTYPES[how]),
            self.policy.head,
            rows.targets(hidden.device),
            hidden,
            times,
            forbidden=self.forbidden(rows),
        )

    def forbidden(self, rows: Rows) -> Forbidden:
        """The end ids, at the response tokens that were sampled without them, (tokens,)."""
        device = self.policy.head.device
        time = torch.cat([torch.arange(len(ids), device=device) for ids in rows.responses])
        ends = torch.tensor(self.policy.end_ids, dtype=torch.long, device=device)
        return time < self.min_new_tokens, ends
