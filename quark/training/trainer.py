"""Optimiser steps on batches that need not fit into memory: what all methods that train share.

It chooses the parameters that learn, runs Adam with a linear schedule, sums the gradients of
micro-batches of similar length, and requires a finite loss. Each method defines its own loss.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from quark.config import Finetuning, Optimisation, Precision
from quark.core.progress import track
from quark.core.shards import batched
from quark.maths.objective import token_logprobs
from quark.models import distributed
from quark.models.checkpoint import Moments, moments_of, restore_moments
from quark.models.decode_state import response_hidden
from quark.models.lm import DTYPES, Policy
from quark.models.lora import has_adapters, top_layers
from quark.models.memory import rows_for_training

log = logging.getLogger(__name__)

Loss = Callable[[list[int]], dict[str, Tensor]]
"""Sums over the rows at some places: `loss`, which is differentiated, and other reported terms."""


class NonFiniteLossError(ArithmeticError):
    """Loss or gradient became infinite or NaN; the text names the rows of the batch."""


class Rows(NamedTuple):
    """Rows to train on: prompt, response, and the quantile or class that the row belongs to.

    `of_tokens`: further values by name, (tokens of all responses,) each, row after row.
    """

    ids: list[str]
    prompts: list[list[int]]
    responses: list[list[int]]
    label: NDArray[np.int32]
    of_tokens: Mapping[str, Tensor] = MappingProxyType({})

    def take(self, places: Sequence[int]) -> "Rows":
        """The rows at `places`."""
        of_tokens: dict[str, Tensor] = {}
        if self.of_tokens:
            first = np.concatenate([[0], np.cumsum(self.lengths.numpy())])
            spans = [np.arange(first[i], first[i + 1]) for i in places]
            chosen = torch.from_numpy(np.concatenate(spans))
            of_tokens = {k: all_[chosen.to(all_.device)] for k, all_ in self.of_tokens.items()}
        return Rows(
            [self.ids[i] for i in places],
            [self.prompts[i] for i in places],
            [self.responses[i] for i in places],
            self.label[list(places)],
            of_tokens,
        )

    @property
    def lengths(self) -> Tensor:
        """Tokens of each response, (rows,)."""
        return torch.tensor(list(map(len, self.responses)))

    @property
    def whole_lengths(self) -> list[int]:
        """Tokens of each row's prompt and response, [rows]."""
        return [len(p) + len(r) for p, r in zip(self.prompts, self.responses, strict=True)]

    def targets(self, device: torch.device) -> Tensor:
        """The tokens of all responses, row after row, (tokens,)."""
        return torch.tensor([token for ids in self.responses for token in ids], device=device)

    def sums(self, values: Tensor) -> Tensor:
        """The sum of each row's values, (rows,), of values (tokens,), row after row."""
        lengths = self.lengths.to(values.device)
        row = torch.arange(len(lengths), device=values.device).repeat_interleave(lengths)
        return values.new_zeros(len(lengths)).index_add(0, row, values)


class Trainer:
    """Adam with linear warm-up and decay.

    Args:
        module: its parameters that require a gradient learn.
        how: the optimiser's numbers.
        rate: the learning rate of a parameter, by its name.
        total_steps: the rate has decayed to zero after so many steps.
        lengths: (n,) tokens of each row; a micro-batch has rows of similar length.
        micro_batch: rows that fit into memory together.
        resume: the optimiser's moments, and how many steps it has taken.
    """

    def __init__(
        self,
        module: nn.Module,
        how: Optimisation,
        rate: Callable[[str], float],
        *,
        total_steps: int,
        lengths: Sequence[int],
        micro_batch: int,
        resume: tuple[Moments, int] | None = None,
    ) -> None:
        self.module, self.how = module, how
        self.total_steps = total_steps
        self.lengths = np.asarray(lengths)
        self.micro_batch = micro_batch
        self.taken = 0
        self._split = distributed.has_split_layers(module)
        if self._split:
            self.micro_batch = distributed.least(micro_batch)
        named = module.named_parameters()
        self._names: dict[Tensor, str] = {p: name for name, p in named if p.requires_grad}
        groups: dict[tuple[float, type], list[Tensor]] = {}  # Adam needs tensors of one type
        for parameter, name in self._names.items():
            groups.setdefault((rate(name), type(parameter)), []).append(parameter)
        rated: list[dict[str, Any]] = [{"params": g, "base_lr": r} for (r, _), g in groups.items()]
        self._optimizer = torch.optim.Adam(rated, betas=how.betas, eps=how.eps, fused=True)
        if resume:
            self.taken = resume[1]
            restore_moments(self._optimizer, self._names, *resume)

    @property
    def moments(self) -> Moments:
        """The optimiser's moments by parameter name; all processes must read them together."""
        return moments_of(self._optimizer, self._names)

    def step(
        self, places: Sequence[int], weight: float, ids: Sequence[str], loss: Loss
    ) -> dict[str, float]:
        """One optimiser step on a batch.

        Args:
            places: the rows of the batch.
            weight: divisor of the sums of `loss`, such as the batch's number of tokens.
            ids: names of all rows, for errors.
            loss: sums over the rows at some places.

        Returns:
            The step's number, its terms over `weight`, the gradient's norm, the schedule's factor.

        Raises:
            NonFiniteLossError: the loss or its gradient is infinite or NaN.
        """
        factor = learning_rate_factor(self.taken, self.how.warmup_steps, self.total_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        terms = self._within_memory(list(places), weight, loss)
        bound = float("inf") if self.how.max_grad_norm is None else self.how.max_grad_norm
        norm = distributed.clip_gradients(list(self._names), bound)
        if not np.isfinite([*terms.values(), norm]).all():
            raise NonFiniteLossError(
                f"the loss is {terms['loss']}, its gradient's norm is {norm}; lower the learning "
                f"rate. Rows: {', '.join(ids[i] for i in places)}"
            )
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.taken += 1
        return {"step": self.taken - 1, **terms, "grad_norm": norm, "rate_factor": factor}

    def _within_memory(self, places: list[int], weight: float, loss: Loss) -> dict[str, float]:
        """Add up gradients over micro-batches and processes.

        If memory runs out, the micro-batch is halved. With split layers the other processes wait in
        the same layer, so training stops instead.
        """
        order = np.argsort(self.lengths[places], kind="stable")
        own = [places[i] for i in order[distributed.rank() :: distributed.world()]]
        terms = self._within_own_memory(own, weight, loss)
        if self._split:
            self._keep_pace(places, len(own), loss)
        distributed.add_gradients(self._names)
        return distributed.add_terms(terms)

    def _keep_pace(self, places: list[int], own: int, loss: Loss) -> None:
        """Run split layers as often as the process with most rows; the gradient added is 0."""
        most = -(-len(places) // distributed.world())
        for _ in range(-(-own // self.micro_batch), -(-most // self.micro_batch)):
            (0.0 * loss(places[:1])["loss"]).backward()

    def _within_own_memory(self, places: list[int], weight: float, loss: Loss) -> dict[str, float]:
        while True:
            try:
                return self._accumulate(places, weight, loss)
            except torch.OutOfMemoryError as error:
                if self._split:
                    raise MemoryError(
                        f"{self.micro_batch} rows do not fit on the GPU: train in more processes, "
                        "or with gradient_checkpointing"
                    ) from error
                if self.micro_batch == 1:
                    raise
            self.module.zero_grad(set_to_none=True)
            self.micro_batch = max(1, min(self.micro_batch, len(places)) // 2)
            log.warning("out of memory: going on with %d rows at a time", self.micro_batch)

    def _accumulate(self, places: list[int], weight: float, loss: Loss) -> dict[str, float]:
        sums: dict[str, float] = {}
        for part in self._micro_batches(places):
            terms = loss(part)
            (terms["loss"] / weight).backward()
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + float(term.detach())
        return {name: total / weight for name, total in sums.items()}

    def _micro_batches(self, places: list[int]) -> Iterator[list[int]]:
        """Batches of rows of similar length, so that little is padded; of nearly equal size."""
        order = np.argsort(self.lengths[places], kind="stable")
        count = max(1, -(-len(places) // self.micro_batch))
        yield from batched([places[i] for i in order], max(1, -(-len(places) // count)))


def learning_rate_factor(step: int, warmup: int, total: int) -> float:
    """Linear to 1 over `warmup` steps, then linear to 0 at `total`.

    It is the official scheduler without its first step, which has rate 0 and no effect.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return max(0.0, (total - step) / max(1, total - warmup))


def deal(places: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`count` of the places in random order; no place repeats until all have been used."""
    rounds = -(-count // len(places)) if count else 0
    hands = [rng.permutation(places) for _ in range(rounds)]
    return np.concatenate([*hands, np.empty(0, dtype=np.int64)])[:count].astype(np.int64)


def choose_parameters(lm: nn.Module, trained_layers: int | None, checkpointing: bool) -> None:
    """Let only the top layers of a language model learn; None: all; if it has adapters, only those.

    Raises:
        ConfigError: the model has fewer layers.
    """
    if not has_adapters(lm) and trained_layers is not None:
        lm.requires_grad_(False)
        for layer in top_layers(lm, trained_layers):
            layer.requires_grad_(True)
    if checkpointing:
        _keep_only_layer_inputs(lm)


def _keep_only_layer_inputs(lm: Any) -> None:
    """Gradient checkpointing: backward runs each layer again from its input.

    transformers does so for layers in training mode; dropout inside them stays off.
    """
    lm.activation_checkpointing_enable()
    for module in lm.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True


def autocast(policy: Policy, precision: Precision) -> torch.autocast:
    """Matrix products in bfloat16, or everything in float32."""
    return torch.autocast(
        policy.head.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"
    )


def epochs(
    trainer: Trainer,
    rows: Rows,
    loss: Callable[[Rows], dict[str, Tensor]],
    *,
    count: int,
    weights: Sequence[int],
    rng: np.random.Generator,
    what: str,
) -> list[dict[str, float]]:
    """Train on all rows `count` times, in a new random order each time.

    Args:
        trainer: its schedule has as many steps in total.
        rows: what to train on.
        loss: sums over some rows.
        count: passes over the rows.
        weights: (n,) what each row adds to the divisor of a batch's sums: its tokens, or 1.
        rng: of the order.
        what: for the progress bar.

    Returns:
        The terms of each step.
    """
    batches: list[list[int]] = []
    for _ in range(count):
        order = rng.permutation(len(rows.ids)).tolist()
        batches += batched(order, trainer.how.batch)
    curve = []
    for batch in track(batches, what):
        weight = sum(weights[i] for i in batch)
        terms = trainer.step(batch, weight, rows.ids, lambda part: loss(rows.take(part)))
        curve.append({**terms, "weight": float(weight)})
    return curve


TextLoss = Callable[[Policy, Rows, Precision, int], dict[str, Tensor]]
"""From policy, rows, the precision of matrix products and the step's number: sums over the rows."""


def response_tokens(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    precision: Precision,
) -> tuple[Tensor, Tensor]:
    """Last hidden states (tokens, d) that predict the responses' tokens, and log p (tokens,)."""
    with autocast(policy, precision):
        hidden = response_hidden(policy, prompts, responses)
    targets = torch.tensor([i for r in responses for i in r], device=hidden.device)
    return hidden, token_logprobs(hidden.to(DTYPES[precision]), policy.head, targets)


def steps_of(rows: int, batch: int, count: int) -> int:
    """Optimiser steps in `count` passes over `rows`."""
    return count * -(-rows // batch)


def sizes(
    policy: Policy, rows: Rows, how: Finetuning, memory_mb: int, times: int = 1, least: int = 0
) -> dict[str, Any]:
    """Arguments of a `Trainer` for its rows, each of which is read `times` times in a step.

    Memory is reserved for at least `least` tokens of each row.
    """
    lengths = rows.whole_lengths
    longest = times * max(max(lengths) + 1, least)
    return {
        "total_steps": steps_of(len(rows.ids), how.batch, how.epochs),
        "lengths": lengths,
        "micro_batch": rows_for_training(
            policy, policy, longest, memory_mb, how.gradient_checkpointing
        ),
    }
