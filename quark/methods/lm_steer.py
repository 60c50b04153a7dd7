"""LM-Steer: a linear map of the last hidden state, from labelled text (Han et al. 2024, ACL).

    logits = (h + c h W) E'

    loss = -log p(y | x, c = +1)  for wanted text,   -log p(y | x, c = -1)  for unwanted text

h is the base model's last hidden state, E its output embeddings; W, (d, d), is all that learns. The
place c steers: 0 is the base model, beyond 1 extrapolates. This is the form of Quark's linear
reward tokens (`quark.models.reward_tokens`); only the loss and the data differ. Quark sorts its own
samples by reward into K quantiles and adds a KL penalty.

DExperts with such parameters (Liu et al. 2021; `quark.methods.dexperts`) has two maps in place of
two models: one learns from wanted text alone at c = +1, the other from unwanted text alone at
c = -1. Its logits are base + alpha (expert - anti-expert), which here is the sum of both maps at
place alpha.

Departures from the paper, whose details are recalled (from memory, not read): here W itself learns
from zero, with c = 1 in training; in the paper W is the product of two learnt factors that start at
small random numbers, c is 1e-3, and training is longer. The training text
is this project's corpus. Only tokens within the base model's nucleus are drawn, as for the other
methods that decode at a place c.

This module imports torch only inside functions, so that Snakemake reads its specs quickly.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from quark.config import Finetuning, Place, Precision, RewardTokens
from quark.config.spec import MethodSpec, Part
from quark.config.types import Section

if TYPE_CHECKING:
    from torch import Tensor

    from quark.config import WrittenConfig
    from quark.models.lm import Policy
    from quark.training.fitting import Fitted, Texts
    from quark.training.trainer import Rows


class MapTraining(Finetuning):
    """How a map learns: `learning_rate` is its rate."""

    trained_layers: Literal[0]


class Settings(Section):
    """How a method's maps are trained, and the place c at which it decodes."""

    training: MapTraining
    place: float


def _settings(config: "WrittenConfig", name: str) -> Settings:
    return cast(Settings, config.plugin(name))


def _spec(
    name: str, label: str, labels: dict[str, int | None], look: tuple[str, str]
) -> MethodSpec:
    return MethodSpec(
        label,
        parts={
            part: Part(
                "quark.methods.lm_steer:fit",
                settings=MapTraining,
                training=lambda config: _settings(config, name).training,
                label=kind,
            )
            for part, kind in labels.items()
        },
        decoder="quark.methods.guided:decoder",
        settings=Place,
        steering=lambda config: Place(place=_settings(config, name).place),
        form=lambda config: "linear",
        place=lambda config: _settings(config, name).place,
        section=Settings,
        within_base=True,
        reads_as_base="always",
        look=look,
    )


ONE_MAP = _spec("lm_steer", "LM-Steer", {"map": None}, ("#8C564B", "<"))
TWO_MAPS = _spec(
    "dexperts_linear",
    "DExperts (two maps)",
    {"expert-map": 0, "anti-expert-map": 1},
    ("#999999", ">"),
)


def loss(
    policy: "Policy", rows: "Rows", hidden: "Tensor", precision: Precision
) -> "dict[str, Tensor]":
    """-log p(response | prompt, own place) in nats, summed over the tokens of all rows.

    Args:
        policy: has the map.
        rows: texts; `label` 0 is read at place 1, `label` 1 at place -1.
        hidden: (tokens, d) last hidden states that predict the rows' tokens.
        precision: of matrix products.
    """
    import torch

    from quark.maths.objective import shifted_logprobs
    from quark.models.lm import DTYPES
    from quark.models.reward_tokens import LinearTokens

    place = torch.from_numpy(1.0 - 2.0 * rows.label).float().repeat_interleave(rows.lengths)
    tokens = cast(LinearTokens, policy.reward_tokens)
    shift = tokens.shift(hidden, place.to(hidden.device)).to(DTYPES[precision])
    log_p = shifted_logprobs(shift, policy.head, rows.targets(hidden.device), hidden)[0]
    return {"loss": -log_p.sum()}


def fit(texts: "Texts", settings: MapTraining, out: Path) -> "Fitted":
    """Train a map; `out` is its checkpoint, whose two reward tokens are the places +1 and -1.

    Raises:
        NonFiniteLossError: the loss is infinite or NaN.
    """
    from quark.core.seeds import stream
    from quark.models.checkpoint import save
    from quark.models.lm import load_model
    from quark.models.reward_tokens import new_reward_tokens
    from quark.training.fitting import Fitted, reader
    from quark.training.trainer import Trainer, epochs, sizes

    rows, form = texts.rows, RewardTokens(form="linear")
    policy = load_model(texts.model, texts.precision)
    policy.lm.requires_grad_(False)
    policy.reward_tokens = new_reward_tokens(policy.lm, 2, form, seed=0)
    trainer = Trainer(
        policy,
        settings,
        lambda name: settings.learning_rate,
        **sizes(policy, rows, settings, texts.memory_mb),
    )
    read = reader(policy, texts, settings.epochs)
    steps = epochs(
        trainer,
        rows,
        lambda part: loss(policy, part, read(part), texts.precision),
        count=settings.epochs,
        weights=rows.lengths.tolist(),
        rng=stream(texts.seed_name, "order"),
        what=texts.part,
    )
    save(out, policy, {}, form=form, step=trainer.taken, iteration=0, model=texts.model)
    return Fitted(settings.epochs, {"steps": steps})
