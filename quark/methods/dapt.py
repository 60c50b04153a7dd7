"""DAPT: train the base model further on text of one class (Gururangan et al. 2020, ACL).

Plain language modelling on wanted text is the baseline itself; DExperts takes the same training for
its expert, and on unwanted text for its anti-expert (Liu et al. 2021; protocol 6).
"""

import torch
from torch import Tensor

from quark.config import Precision
from quark.lm import DTYPES, Policy
from quark.objective import token_logprobs
from quark.reading import response_hidden
from quark.training import Rows, autocast


def loss(policy: Policy, rows: Rows, precision: Precision) -> dict[str, Tensor]:
    """-log p(response | prompt) in nats, summed over the tokens of some rows."""
    with autocast(policy, precision):
        hidden = response_hidden(policy, rows.prompts, rows.responses)
    targets = torch.tensor([i for r in rows.responses for i in r], device=hidden.device)
    return {"loss": -token_logprobs(hidden.to(DTYPES[precision]), policy.head, targets).sum()}
