"""DAPT: train the base model further on text of one class (Gururangan et al. 2020, ACL).

Plain language modelling on wanted text is the baseline itself; DExperts takes the same training for
its expert, and on unwanted text for its anti-expert (Liu et al. 2021; protocol 6).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from quark.config import Finetuning, Precision
from quark.lm import DTYPES, Policy
from quark.objective import token_logprobs
from quark.reading import response_hidden
from quark.seeds import stream
from quark.training import Rows, Trainer, autocast, choose_parameters, epochs, sizes

Loss = Callable[[Policy, Rows, Precision, int], dict[str, Tensor]]
"""Of a policy, rows, the precision of matrix products and the step's number: sums over the rows."""


def loss(policy: Policy, rows: Rows, precision: Precision, step: int = 0) -> dict[str, Tensor]:
    """-log p(response | prompt) in nats, summed over the tokens of some rows."""
    with autocast(policy, precision):
        hidden = response_hidden(policy, rows.prompts, rows.responses)
    targets = torch.tensor([i for r in rows.responses for i in r], device=hidden.device)
    return {"loss": -token_logprobs(hidden.to(DTYPES[precision]), policy.head, targets).sum()}


def finetune(
    policy: Policy,
    rows: Rows,
    how: Finetuning,
    *,
    precision: Precision,
    seed_name: str,
    memory_mb: int,
    what: str,
    loss: Loss = loss,
) -> list[dict[str, float]]:
    """Train a policy in place on all rows.

    Args:
        policy: in float32.
        rows: texts.
        how: sizes and rates.
        precision: of matrix products.
        seed_name: of the order.
        memory_mb: bounds the rows of a micro-batch.
        what: for the progress bar.
        loss: what is minimised; divided by the responses' tokens.

    Returns:
        Each step's loss in nats per token.

    Raises:
        NonFiniteLossError: the loss is infinite or NaN.
    """
    choose_parameters(policy.lm, how.trained_layers, how.gradient_checkpointing)
    trainer = Trainer(
        policy, how, lambda _: how.learning_rate, **sizes(policy, rows, how, memory_mb)
    )
    return epochs(
        trainer,
        rows,
        lambda part: loss(policy, part, precision, trainer.taken),
        count=how.epochs,
        weights=[len(response) for response in rows.responses],
        rng=stream(seed_name, "order"),
        what=what,
    )
