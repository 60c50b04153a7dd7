"""PPLM: a classifier's gradient moves the cached keys and values (Dathathri et al. 2020, ICLR).

Before each token, the cache of all tokens but the last is moved `iterations` times by

    delta <- delta - step_size  g / |g|^gamma          |g| over a layer's keys and values
    g = gradient by delta of  -log P(wanted | mean hidden state)  +  kl_scale KL(moved || unmoved)

where the mean is over the text so far, unmoved, the last token read on the moved cache, and one
further step with the expected embedding of the next token (horizon 1). The last token is then read
on the moved cache, which stays moved, and the next token's distribution is the geometric mean

    log p = fusion log p_moved + (1 - fusion) log p_unmoved

(official `run_pplm.py`, `perturb_past` and `generate_text_pplm`; protocol 6). step_size 0 is the
base model. The classifier is one linear map, as in that code.

Departures: all samples move at once, each by its own gradient, whereas the official code has one
text at a time; the classifier is fitted by scikit-learn with its default penalty, whereas theirs
takes ten epochs of Adam; 1e-15 is not added to probabilities in the KL, whose logarithms are exact.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from quark import config
from quark.config import Precision
from quark.core import files
from quark.generation.decoding import Decoder, Decoding, NextToken
from quark.models.decode_state import DecodeState, read_padded
from quark.models.lm import Policy, load_model, pad
from quark.training.fitting import Fitted, Texts
from quark.training.trainer import Rows

BATCH = 64
"""Number of texts whose features for the classifier are computed together."""


class PPLM:
    """The decoder of PPLM.

    Args:
        policy: the base model.
        classifier: (classes, d + 1) weights and bias on mean last hidden states; class 0 is wanted.
        settings: steps and scales.
    """

    def __init__(self, policy: Policy, classifier: Tensor, settings: config.PPLM) -> None:
        policy.lm.requires_grad_(False)
        self.policy, self.classifier, self.settings = policy, classifier, settings
        # its own cache, the moved one, and in a step shifts, gradients and copies, in float32
        self.models: Sequence[Policy] = [policy] * 12

    def read(self, prompts: Sequence[Sequence[int]]) -> Decoding:
        """Read the prompts, once whole and once without their last token."""
        return _Moved(self, prompts)


class _Moved:
    """Texts being written.

    `plain`: state after all tokens, not moved. `summed` (rows, d): sum of its last hidden states,
    without the last token's. `moved`: state after all tokens but `last` (rows, 1), with the moved
    cache. `count` (rows, 1): number of tokens in `moved` and in `summed`.
    """

    def __init__(self, pplm: PPLM, prompts: Sequence[Sequence[int]]) -> None:
        self.pplm = pplm
        ids, real = pad([prompt[:-1] for prompt in prompts], "left")
        self.moved, states = read_padded(pplm.policy, ids, real)
        self.summed = (states.float() * real[..., None]).sum(1)
        self.count = real.sum(1, keepdim=True)
        self.last = torch.tensor([[prompt[-1]] for prompt in prompts], device=ids.device)
        self.plain = self.moved.fork()
        self._read_last(self.plain)

    @property
    def hidden(self) -> Tensor:
        return self.plain.hidden

    def next_token(self, forbidden: Sequence[int] = ()) -> NextToken:
        unmoved = self._logits(self.plain)
        moved = _shifted(self.moved, self._shifts(unmoved))
        self._read_last(moved)
        self.next = moved
        fused = unmoved + self.pplm.settings.fusion * (self._logits(moved) - unmoved)
        fused[:, list(forbidden)] = -torch.inf
        return NextToken(fused)

    def select(self, rows: Tensor) -> None:
        self.plain.select(rows)
        self.moved.select(rows)
        self.summed, self.count = self.summed[rows], self.count[rows]
        self.last = self.last[rows]

    def feed(self, ids: Tensor) -> None:
        self.summed, self.count = self.summed + self.plain.hidden.float(), self.count + 1
        self.last, self.moved = ids[:, None], self.next
        self._read_last(self.plain)

    def _read_last(self, reading: DecodeState) -> None:
        reading.feed(self.last, torch.ones_like(self.last, dtype=torch.bool))

    def _logits(self, reading: DecodeState) -> Tensor:
        return (reading.hidden @ self.pplm.policy.head.T).float()

    def _shifts(self, unmoved: Tensor) -> list[Tensor]:
        """The shifts of each layer's cache: (2, rows, heads, time, width), keys and values."""
        how = self.pplm.settings
        shifts = [
            torch.zeros(2, *layer.keys.shape, device=layer.keys.device)
            for layer in self.moved.cache.layers
        ]
        log_q = unmoved.log_softmax(-1)
        for _ in range(how.iterations):
            shifts = [shift.requires_grad_() for shift in shifts]
            with torch.enable_grad():
                gradients = torch.autograd.grad(self._loss(shifts, log_q), shifts)
            shifts = [
                shift.detach() - how.step_size * gradient / _norm(gradient) ** how.gamma
                for shift, gradient in zip(shifts, gradients, strict=True)
            ]
        return shifts

    def _loss(self, shifts: list[Tensor], log_q: Tensor) -> Tensor:
        """-log P(wanted) + kl_scale KL(moved || unmoved), summed over rows."""
        policy, how = self.pplm.policy, self.pplm.settings
        moved, ahead = _shifted(self.moved, shifts), self.plain.fork()
        self._read_last(moved)
        log_p = self._logits(moved).log_softmax(-1)
        expected = log_p.exp().to(policy.embeddings.weight.dtype) @ policy.embeddings.weight
        ahead.feed_embedded(expected[:, None], torch.ones_like(self.last, dtype=torch.bool))
        seen = self.summed + moved.hidden.detach().float() + ahead.hidden.float()
        scores = functional.linear(
            seen / (self.count + 2), self.pplm.classifier[:, :-1], self.pplm.classifier[:, -1]
        )
        kl = (log_p.exp() * (log_p - log_q)).sum()
        return -scores.log_softmax(-1)[:, 0].sum() + how.kl_scale * kl


def _shifted(reading: DecodeState, shifts: list[Tensor]) -> DecodeState:
    """A fork of `reading` whose cache is moved."""
    moved = reading.fork()
    for layer, (keys, values) in zip(moved.cache.layers, shifts, strict=True):
        layer.keys = layer.keys + keys.to(layer.keys.dtype)
        layer.values = layer.values + values.to(layer.values.dtype)
    return moved


def _norm(gradient: Tensor) -> Tensor:
    """The norm of each row's gradient, (1, rows, 1, 1, 1); always above 0."""
    return gradient.square().sum((0, 2, 3, 4), keepdim=True).sqrt() + 1e-15


# ---------------------------------------------------------------------------------- the classifier
def fit(texts: Texts, settings: None, out: Path) -> Fitted:
    """Fit the classifier; `out` holds its weights. It has no settings."""
    policy = load_model(texts.model, texts.precision)
    classifier, accuracy = fit_classifier(policy, texts.rows, BATCH)
    with files.whole(out) as made:
        made.mkdir()
        save_file({"classifier": classifier}, made / "classifier.safetensors")
    return Fitted(1, {"held_out_accuracy": accuracy})


@torch.no_grad()
def fit_classifier(policy: Policy, rows: Rows, batch: int) -> tuple[Tensor, float]:
    """Fit the classifier on mean last hidden states of whole texts, with an L2 penalty (C = 1).

    Args:
        policy: the base model.
        rows: texts; `label` 0 is the wanted class.
        batch: texts read together.

    Returns:
        Weights and bias (2, d + 1), and the accuracy on the last tenth of the rows, held out.
    """
    from sklearn.linear_model import LogisticRegression

    texts = [[*p, *r] for p, r in zip(rows.prompts, rows.responses, strict=True)]
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    features = torch.empty(len(texts), policy.head.shape[1])
    for start in range(0, len(order), batch):
        places = order[start : start + batch]
        ids, real = pad([texts[i] for i in places], "left")
        _, states = read_padded(policy, ids, real)
        summed = (states.float() * real[..., None]).sum(1)
        features[places] = (summed / real.sum(1, keepdim=True)).cpu()
    known = len(texts) - max(1, len(texts) // 10)
    x, y = features.double().numpy(), rows.label
    fitted = LogisticRegression(max_iter=5000).fit(x[:known], y[:known])
    accuracy = float(fitted.score(x[known:], y[known:]))
    wanted = np.concatenate([-fitted.coef_[0], -fitted.intercept_]) / 2  # of class 0: half each way
    return torch.from_numpy(np.stack([wanted, -wanted])).float(), accuracy


def decoder(
    model: Path, parts: Sequence[Path], settings: config.PPLM, precision: Precision
) -> Decoder:
    """The decoder of the base model and the classifier in `parts`; float32 at any `precision`."""
    classifier = load_file(parts[0] / "classifier.safetensors")["classifier"]
    policy = load_model(model, "fp32")  # shifts of some 0.002 would be lost in bfloat16
    return PPLM(policy, classifier.to(policy.head.device), settings)
