"""DAPT: train the base model further on text of one class (Gururangan et al. 2020, ACL).

The loss is plain language modelling on wanted text. DExperts trains its expert in the same way, and
its anti-expert on unwanted text (Liu et al. 2021; protocol 6).
"""

from pathlib import Path

from torch import Tensor

from quark.config import Finetuning, Precision
from quark.core.seeds import stream
from quark.models.checkpoint import save
from quark.models.lm import Policy, load_model
from quark.training.fitting import Fitted, Texts
from quark.training.trainer import (
    Rows,
    TextLoss,
    Trainer,
    choose_parameters,
    epochs,
    response_tokens,
    sizes,
)


def loss(policy: Policy, rows: Rows, precision: Precision, step: int = 0) -> dict[str, Tensor]:
    """-log p(response | prompt) in nats, summed over the tokens of some rows at any step."""
    _, log_p = response_tokens(policy, rows.prompts, rows.responses, precision)
    return {"loss": -log_p.sum()}


def fit(texts: Texts, settings: Finetuning, out: Path) -> Fitted:
    """Train the base model further on texts of one class; `out` is its checkpoint.

    Raises:
        NonFiniteLossError: the loss is infinite or NaN.
    """
    policy = load_model(texts.model, "fp32")
    steps = finetune(
        policy,
        texts.rows,
        settings,
        precision=texts.precision,
        seed_name=texts.seed_name,
        memory_mb=texts.memory_mb,
        what=texts.part,
    )
    save(out, policy, {}, form=None, step=len(steps), iteration=0, model=texts.model)
    return Fitted(settings.epochs, {"steps": steps})


def finetune(
    policy: Policy,
    rows: Rows,
    how: Finetuning,
    *,
    precision: Precision,
    seed_name: str,
    memory_mb: int,
    what: str,
    of: TextLoss = loss,
    least: int = 0,
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
        of: the loss to minimise, which is divided by the responses' tokens.
        least: tokens of a row that memory is reserved for, if `of` reads more than the row.

    Returns:
        Each step's terms of `of`, the loss among them, in nats per token.

    Raises:
        NonFiniteLossError: the loss is infinite or NaN.
    """
    choose_parameters(policy.lm, how.trained_layers, how.gradient_checkpointing)
    trainer = Trainer(
        policy, how, lambda _: how.learning_rate, **sizes(policy, rows, how, memory_mb, least=least)
    )
    return epochs(
        trainer,
        rows,
        lambda part: of(policy, part, precision, trainer.taken),
        count=how.epochs,
        weights=[len(response) for response in rows.responses],
        rng=stream(seed_name, "order"),
        what=what,
    )
