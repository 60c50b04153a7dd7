"""A registered model as MLflow loads it: `mlflow.pyfunc.load_model("models:/toxicity-quark/1")`.

A version holds what training changed, not the base model, so it is small: the base model is read
from `resources/models` of the directory in which Python runs. `quark.reporting.tracking` writes the
folder; its `MLmodel` names this module, and MLflow calls `_load_pyfunc`. Nothing is pickled.
"""

import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from quark.config import Precision, Sampling
from quark.config.types import Section
from quark.core.files import read_json

SETTINGS = "served.json"
RESOURCES = Path("resources/models")


class Served(Section):
    """How a version continues prompts: as the evaluation of its run did."""

    model: str
    precision: Precision
    sampling: Sampling


class Continuations:
    """The unlearned model under its best reward token; MLflow wraps it.

    Args:
        folder: checkpoint and settings.
    """

    def __init__(self, folder: Path) -> None:
        from quark.generation.decoding import Plain
        from quark.models.checkpoint import load_policy
        from quark.models.lm import load_tokenizer

        self.settings = Served.model_validate(read_json(folder / SETTINGS))
        base = RESOURCES / self.settings.model
        policy = load_policy(base, folder, self.settings.precision)
        policy.steer()
        self.tokenizer = load_tokenizer(base)
        self.decoder = Plain(policy)

    def predict(self, prompts: Any, params: Any = None) -> list[str]:
        """Return a new continuation of each prompt.

        Args:
            prompts: texts: a list, a column, or a table with one column.
            params: not used; MLflow passes it.
        """
        from quark.generation.sampler import sample
        from quark.models.lm import decode_after, encode

        texts = list(_column(prompts))
        token = None if self.decoder.policy.reward_tokens is None else 0
        ids = encode(self.tokenizer, texts)
        found = sample(
            self.decoder,
            [self.decoder.policy.condition(each, token) for each in ids],
            [str(i) for i in range(len(texts))],
            1,
            self.settings.sampling,
            seed_name=f"served/{secrets.token_hex(8)}",
            memory_mb=8000,
        )
        written = {each.place: each.ids[0] for each in found}
        return decode_after(self.tokenizer, ids, [written[i] for i in range(len(texts))])


def _column(prompts: Any) -> Iterable[str]:
    """Return the texts of a list, of a column, or of a table's only column."""
    if getattr(prompts, "ndim", 1) == 2:
        if prompts.shape[1] != 1:
            raise ValueError(f"give one column of prompts, not {prompts.shape[1]}")
        prompts = prompts.iloc[:, 0] if hasattr(prompts, "iloc") else prompts[:, 0]
    return [str(text) for text in ([prompts] if isinstance(prompts, str) else prompts)]


def _load_pyfunc(path: str) -> Continuations:
    """Load a version; MLflow calls this function by its name."""
    return Continuations(Path(path))
