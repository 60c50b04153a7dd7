"""GeDi: a class-conditional language model weighs each next token (Krause et al. 2021, EMNLP).

One language model reads every text under a token that names its class. Training mixes two losses

    loss = lambda L_gen + (1 - lambda) L_disc
    L_gen  = -1/T log p(y | own token)
    L_disc = -log P(own class | y),    P(c | y) ~ exp(s/T log p(y | token_c))

and decoding weighs each candidate v for the next token by Bayes' rule over the response so far:

    logits(v) = base(v) + omega log P(wanted | y_<t, v)

Then the least wanted tokens, with a total probability below `filter_p`, are removed, except tokens
whose P(wanted) is `target_p` or more (official `modeling_utils.py`, `train_GeDi.py`; protocol 6).
omega is `weight`; s is learned; `class_bias` is added to the wanted class's exponent. weight 0 and
filter_p 0 are the base model.

Departures: the class tokens have the form of the reward tokens. An embedded one starts as the
embedding of a word, `codes`, as published; with thousands of texts the model does not learn to use
it. By default they are linear: the two classes are the places +1 and -1 of one map of the base
model's last hidden states, so that decoding needs only the base model's own pass. s starts at
`FIRST_SCALE`, not at 1: at 1, classes that differ little give almost no evidence. The evidence is
the response alone, whereas the official code counts the prompt too, whose class adds no
information; there is no repetition penalty; the filter sorts only the rows that need it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from quark import config
from quark.config import ConfigError, GeDiTraining, Precision, RewardTokens
from quark.core.seeds import stream
from quark.generation.decoding import BaseStates, Decoder, Decoding, Guidance, Guided, Plain
from quark.maths.objective import shifted_logprobs
from quark.models.checkpoint import load_policy, read_about, save
from quark.models.lm import DTYPES, Policy, encode, load_model, load_tokenizer
from quark.models.reward_tokens import EmbeddingTokens, LinearTokens, new_reward_tokens
from quark.training.fitting import Fitted, Texts, reader
from quark.training.trainer import (
    Rows,
    Trainer,
    choose_parameters,
    epochs,
    response_tokens,
    sizes,
)

FIRST_SCALE = 10.0
"""s before training."""


class Classes(nn.Module):
    """The class-conditional language model.

    Args:
        policy: its reward tokens name the classes, 0 the wanted one.
        scale: s.
    """

    def __init__(self, policy: Policy, scale: float = FIRST_SCALE) -> None:
        super().__init__()
        self.policy = policy
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale), device=policy.head.device))

    @property
    def scale(self) -> Tensor:
        """s, above 0."""
        return self.log_scale.exp()


def new_classes(policy: Policy, form: RewardTokens, codes: tuple[int, int], seed: int) -> Classes:
    """Classes before training; tokens of form embedding start as the embeddings of `codes`."""
    tokens = policy.reward_tokens = new_reward_tokens(policy.lm, 2, form, seed)
    if isinstance(tokens, EmbeddingTokens):
        with torch.no_grad():
            tokens.rows.copy_(policy.embeddings.weight[list(codes)])
    return Classes(policy)


@dataclass
class _TwoReadings:
    """Both classes read the texts: 2 x rows, those of the wanted class first."""

    decoding: Decoding

    def logits(self) -> Tensor:
        logits = self.decoding.next_token().logits
        return logits.view(2, -1, logits.shape[-1])

    def select(self, rows: Tensor) -> None:
        self.decoding.select(torch.cat([rows, rows + len(self.decoding.hidden) // 2]))

    def feed(self, ids: Tensor) -> None:
        self.decoding.feed(ids.repeat(2))


class _OneReading(BaseStates):
    """Both classes are places of one map: the base model's hidden states serve both."""

    def __init__(
        self, policy: Policy, prompts: Sequence[Sequence[int]], guided: Decoding | None
    ) -> None:
        super().__init__(Policy(policy.lm), prompts, guided)
        self.policy = policy

    def logits(self) -> Tensor:
        tokens, hidden = cast(LinearTokens, self.policy.reward_tokens), self.hidden
        base, shift = (
            (states.to(hidden.dtype) @ self.policy.head.T).float()
            for states in (hidden, tokens.shift(hidden, 1.0))
        )
        return torch.stack([base + shift, base - shift])


class _Evidence:
    """Log-probability of the responses so far, and of each next token, under both classes."""

    def __init__(
        self, texts: _TwoReadings | _OneReading, rows: int, scale: float, settings: config.GeDi
    ) -> None:
        self.texts, self.scale, self.settings = texts, scale, settings
        device = texts.decoding.hidden.device
        self.so_far = torch.zeros(2, rows, device=device)  # nats; the wanted class first
        self.length = 0
        self.next = self.so_far[..., None]  # (2, rows, V), once `adjust` has formed it

    def adjust(self, logits: Tensor) -> Tensor:
        logprobs = self.texts.logits().log_softmax(-1, dtype=torch.float32)
        self.next = self.so_far[..., None] + logprobs
        wanted, other = self.scale * self.next / (self.length + 1)
        log_wanted = functional.logsigmoid(wanted + self.settings.class_bias - other)
        guided = logits + self.settings.weight * log_wanted
        return _without_least_wanted(guided, log_wanted, self.settings)

    def select(self, rows: Tensor) -> None:
        self.texts.select(rows)
        self.so_far = self.so_far[:, rows]

    def feed(self, ids: Tensor) -> None:
        self.texts.feed(ids)
        self.so_far = self.next.gather(-1, ids.expand(2, -1)[..., None]).squeeze(-1)
        self.length += 1


def _without_least_wanted(guided: Tensor, log_wanted: Tensor, settings: config.GeDi) -> Tensor:
    """Set the least wanted tokens below `target_p` to -inf, up to total probability `filter_p`.

    Args:
        guided: (rows, V) logits.
        log_wanted: (rows, V) log P(wanted) of each candidate.
        settings: filter_p and target_p.
    """
    misses = log_wanted < math.log(settings.target_p)
    probs = guided.softmax(-1)
    rows = ((probs * misses).sum(-1) >= settings.filter_p).nonzero().squeeze(-1)
    order = log_wanted[rows].argsort(dim=-1, stable=True)
    beyond = probs[rows].gather(-1, order).cumsum(-1) >= settings.filter_p
    misses[rows] &= ~beyond.scatter(-1, order, beyond)  # only these rows need to be sorted
    return guided.masked_fill(misses, -torch.inf)


class GeDi:
    """The guide of GeDi.

    Args:
        policy: the class-conditional language model; its reward tokens name the classes.
        scale: s.
        settings: weight, filter and bias.
    """

    within_base = False

    def __init__(self, policy: Policy, scale: float, settings: config.GeDi) -> None:
        self.policy, self.scale, self.settings = policy, scale, settings
        self.is_linear = isinstance(policy.reward_tokens, LinearTokens)
        self.models: Sequence[Policy] = [] if self.is_linear else [policy, policy]  # two caches

    def read(self, prompts: Sequence[Sequence[int]], guided: Decoding | None = None) -> Guidance:
        """Read the prompts under both classes; linear classes use the states of `guided`."""
        texts: _TwoReadings | _OneReading
        if self.is_linear:
            texts = _OneReading(self.policy, prompts, guided)
        else:
            named = [self.policy.condition(prompt, k) for k in (0, 1) for prompt in prompts]
            texts = _TwoReadings(Plain(self.policy).read(named))
        return _Evidence(texts, len(prompts), self.scale, self.settings)


def loss(
    classes: Classes,
    rows: Rows,
    generative: float,
    precision: Precision,
    hidden: Tensor | None = None,
) -> dict[str, Tensor]:
    """The training loss, summed over rows.

    Args:
        classes: the class-conditional language model.
        rows: texts; `label` 0 is the wanted class.
        generative: lambda.
        precision: of matrix products.
        hidden: (tokens, d) last hidden states that predict the rows' tokens, for linear classes.

    Returns:
        `loss`, `generative` and `discriminative` in nats, and how many rows were `right`.
    """
    mean_logprob = _mean_logprobs(classes.policy, rows, precision, hidden)
    label = torch.from_numpy(rows.label).long().to(mean_logprob.device)
    own = mean_logprob.gather(0, label[None]).sum()
    discriminative = functional.cross_entropy(
        (classes.scale * mean_logprob).T, label, reduction="sum"
    )
    return {
        "loss": generative * -own + (1 - generative) * discriminative,
        "generative": -own.detach(),
        "discriminative": discriminative.detach(),
        "right": (mean_logprob.argmax(0) == label).sum(),
    }


def _mean_logprobs(
    policy: Policy, rows: Rows, precision: Precision, hidden: Tensor | None
) -> Tensor:
    """1/T log p(response | prompt) under each class, (2, rows), differentiable."""
    tokens = policy.reward_tokens
    if isinstance(tokens, LinearTokens):
        assert hidden is not None, "linear classes need the hidden states"
        shift = tokens.shift(hidden, 1.0).to(DTYPES[precision])
        targets = rows.targets(hidden.device)
        found = shifted_logprobs(shift, policy.head, targets, hidden, times=(1, -1))
    else:
        named = [[policy.condition(prompt, k) for prompt in rows.prompts] for k in (0, 1)]
        found = torch.stack(
            [response_tokens(policy, each, rows.responses, precision)[1] for each in named]
        )
    return torch.stack([rows.sums(each) for each in found]) / rows.lengths.to(found.device)


def fit(texts: Texts, settings: GeDiTraining, out: Path) -> Fitted:
    """Train the class-conditional language model; `out` is its checkpoint, with s in its notes.

    Raises:
        ConfigError: there are no reward tokens to name the classes; or a setting does not fit them.
        NonFiniteLossError: the loss is infinite or NaN.
    """
    form, rows = texts.reward_tokens, texts.rows
    if form is None:
        raise ConfigError("the part gedi needs reward_tokens, which name its classes")
    is_frozen = settings.trained_layers == 0
    policy = load_model(texts.model, texts.precision if is_frozen else "fp32")
    classes = new_classes(policy, form, code_ids(texts.model, settings.codes), seed=0)
    choose_parameters(policy.lm, settings.trained_layers, settings.gradient_checkpointing)
    rates = {
        "log_scale": settings.scale_learning_rate,
        "reward_tokens": settings.token_learning_rate,
        "lm": settings.learning_rate,
    }
    trainer = Trainer(
        classes,
        settings,
        lambda name: rates[name.removeprefix("policy.").split(".")[0]],
        **sizes(policy, rows, settings, texts.memory_mb, times=2),
    )
    read = reader(policy, texts, settings.epochs)

    def losses(part: Rows) -> dict[str, Tensor]:
        hidden = read(part) if form.form == "linear" else None
        return loss(classes, part, settings.generative, texts.precision, hidden)

    steps = epochs(
        trainer,
        rows,
        losses,
        count=settings.epochs,
        weights=[1] * len(rows.ids),
        rng=stream(texts.seed_name, "order"),
        what=texts.part,
    )
    notes = {"scale": classes.scale.item()}
    save(
        out, policy, {}, form=form, step=trainer.taken, iteration=0, model=texts.model, notes=notes
    )
    return Fitted(settings.epochs, {"steps": steps})


def code_ids(model: Path, codes: tuple[str, str]) -> tuple[int, int]:
    """The first token of each code word, wanted and unwanted.

    Raises:
        ConfigError: both begin with the same token.
    """
    wanted, other = (ids[0] for ids in encode(load_tokenizer(model), codes))
    if wanted == other:
        raise ConfigError(f"baselines.gedi.training.codes: {codes} begin with the same token")
    return wanted, other


def decoder(
    model: Path, parts: Sequence[Path], settings: config.GeDi, precision: Precision
) -> Decoder:
    """The decoder of the base model guided by the class-conditional model in `parts`."""
    scale = read_about(parts[0])["scale"]
    policy = load_policy(model, parts[0], precision)
    guide = GeDi(policy, scale, settings)
    base = Policy(policy.lm) if guide.is_linear else load_model(model, precision)
    return Guided(base, guide)
