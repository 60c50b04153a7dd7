"""GeDi: a class-conditional language model weighs each next token (Krause et al. 2021, EMNLP).

One language model reads every text under a token that names its class. Training mixes two losses

    loss = lambda L_gen + (1 - lambda) L_disc
    L_gen  = -1/T log p(y | own token)
    L_disc = -log P(own class | y),    P(c | y) ~ exp(s/T log p(y | token_c))

and decoding weighs each candidate v for the next token by Bayes' rule over the response so far:

    logits(v) = base(v) + omega log P(wanted | y_<t, v)

Then, of the least wanted tokens, those that together have probability below `filter_p` go, unless
P(wanted) is `target_p` or more (official `modeling_utils.py`, `train_GeDi.py`; protocol 6). omega
is `weight`; s is learned; `class_bias` is added to the wanted class's exponent. weight 0 and
filter_p 0 are the base model.

Departures: the tokens have the form that reward tokens have. An embedded one starts as a word,
`codes`, which is the published way; with thousands of texts the model does not come to heed it, and
so the default is a sink. s starts at `FIRST_SCALE`, not at 1: at 1 a class-conditional model that
differs little tells nothing. The evidence is the response alone, where the official code counts the
prompt too, whose class is no news; no repetition penalty; the filter sorts only rows where it must.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from quark import config
from quark.checkpoint import load_policy, read_about
from quark.config import ConfigError, Precision, RewardTokens
from quark.decoding import Decoder, Decoding, Guidance, Guided, Plain
from quark.lm import Policy, encode, load_model, load_tokenizer
from quark.reward_tokens import EmbeddingTokens, new_reward_tokens
from quark.training import Rows, response_tokens

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
    """Classes before training; tokens of form embedding start as those of `codes`."""
    tokens = policy.reward_tokens = new_reward_tokens(policy.lm, 2, form, seed)
    if isinstance(tokens, EmbeddingTokens):
        with torch.no_grad():
            tokens.rows.copy_(policy.embeddings.weight[list(codes)])
    return Classes(policy)


class _Evidence:
    """What both classes make of the responses so far: 2 x rows, the wanted class's come first."""

    def __init__(self, decoding: Decoding, rows: int, scale: float, settings: config.GeDi) -> None:
        self.decoding, self.scale, self.settings = decoding, scale, settings
        self.so_far = decoding.hidden.new_zeros(2, rows, dtype=torch.float32)  # nats
        self.length = 0
        self.next = self.so_far[..., None]  # (2, rows, V), once `adjust` has formed it

    def adjust(self, logits: Tensor) -> Tensor:
        law = self.decoding.law().logits.log_softmax(-1, dtype=torch.float32)
        self.next = self.so_far[..., None] + law.view(2, -1, law.shape[-1])
        wanted, other = self.scale * self.next / (self.length + 1)
        log_wanted = functional.logsigmoid(wanted + self.settings.class_bias - other)
        guided = logits + self.settings.weight * log_wanted
        return _without_least_wanted(guided, log_wanted, self.settings)

    def select(self, rows: Tensor) -> None:
        self.decoding.select(torch.cat([rows, rows + self.so_far.shape[1]]))
        self.so_far = self.so_far[:, rows]

    def feed(self, ids: Tensor) -> None:
        self.decoding.feed(ids.repeat(2))
        self.so_far = self.next.gather(-1, ids.expand(2, -1)[..., None]).squeeze(-1)
        self.length += 1


def _without_least_wanted(guided: Tensor, log_wanted: Tensor, settings: config.GeDi) -> Tensor:
    """-inf for the least wanted tokens, up to probability `filter_p`, that miss `target_p`.

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
    """The guide.

    Args:
        policy: the class-conditional language model; its reward tokens name the classes.
        scale: s.
        settings: weight, filter and bias.
    """

    within_base = False

    def __init__(self, policy: Policy, scale: float, settings: config.GeDi) -> None:
        self.policy, self.scale, self.settings = policy, scale, settings
        self.models: Sequence[Policy] = [policy, policy]  # two caches

    def read(self, prompts: Sequence[Sequence[int]]) -> Guidance:
        """Read the prompts under both classes."""
        told = [self.policy.condition(prompt, k) for k in (0, 1) for prompt in prompts]
        decoding = Plain(self.policy).read(told)
        return _Evidence(decoding, len(prompts), self.scale, self.settings)


def loss(
    classes: Classes, rows: Rows, generative: float, precision: Precision
) -> dict[str, Tensor]:
    """The training loss, summed over rows.

    Args:
        classes: the class-conditional language model.
        rows: texts; `label` 0 is the wanted class.
        generative: lambda.
        precision: of matrix products.

    Returns:
        `loss`, `generative` and `discriminative` in nats, and how many rows were `right`.
    """
    policy = classes.policy
    by_class = []
    for k in (0, 1):
        prompts = [policy.condition(prompt, k) for prompt in rows.prompts]
        by_class.append(_mean_logprob(policy, prompts, rows.responses, precision))
    mean_logprob = torch.stack(by_class)  # (2, rows)
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


def _mean_logprob(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    precision: Precision,
) -> Tensor:
    """1/T log p(response | prompt), (rows,), differentiable."""
    _, found = response_tokens(policy, prompts, responses, precision)
    lengths = torch.tensor([len(r) for r in responses], device=found.device)
    row = torch.arange(len(responses), device=found.device).repeat_interleave(lengths)
    return torch.zeros(len(responses), device=found.device).index_add(0, row, found) / lengths


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
    """The base model under the class-conditional one whose checkpoint `parts` holds."""
    scale = read_about(parts[0])["scale"]
    guide = GeDi(load_policy(model, parts[0], precision), scale, settings)
    return Guided(load_model(model, precision), guide)
