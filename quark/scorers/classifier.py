"""Any text-classification model as a scorer: the probability of one of its labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from quark.config import Label
from quark.core.files import read_json
from quark.core.shards import batched
from quark.models.memory import within_memory
from quark.models.weights import check_model

BATCH = 64
"""Texts read together."""


class ClassifierError(ValueError):
    """A classifier that cannot score as it is configured; the text says what to change."""


class Classifier:
    """The probability of one of a model's labels, in float32.

    The label competes with the other labels (softmax), as in the paper's scorer of sentiment, or is
    independent of them (sigmoid), as in models that give a text several labels.

    Texts are sorted by length and read in batches, so that little is padded. A text of more than
    `tokens` tokens is cut; its beginning is kept. Every text gets a score; an empty text gets that
    of the model's special tokens alone.

    Args:
        name: in the configuration.
        how: label, and what is read.
        folder: the fetched model.

    Raises:
        ClassifierError: the model has no such label, has fewer positions than `tokens`, or was
            trained with independent labels while `how.alone` is false.
        CustomCodeError: it requires custom code.
        DamagedError: its weights are damaged.
    """

    def __init__(self, name: str, how: Label, folder: Path) -> None:
        self.name, self.how = name, how
        self.version = str(read_json(folder / "manifest.json")["sha256"])[:12]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        check_model(folder)
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
        labels: dict[int, str] = model.config.id2label
        if how.label not in labels.values():
            raise ClassifierError(
                f"classifiers.{name}.reads.label is {how.label!r}, the model's are "
                + ", ".join(map(repr, labels.values()))
            )
        alone = getattr(model.config, "problem_type", None) == "multi_label_classification"
        if alone and not how.alone:
            raise ClassifierError(
                f"classifiers.{name}.reads.alone is false, but each label is judged by itself"
            )
        positions = getattr(model.config, "max_position_embeddings", how.tokens)
        if how.tokens > positions:
            raise ClassifierError(
                f"classifiers.{name}.reads.tokens is {how.tokens}, the model reads {positions}"
            )
        self.label = next(i for i, label in labels.items() if label == how.label)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self.model = model.to(device).eval()

    @torch.inference_mode()
    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> NDArray[np.float64]:
        """Return the probability of the label for each text, shape (n,); never NaN.

        Raises:
            ValueError: `prompts` and `responses` differ in length.
        """
        if len(prompts) != len(responses):
            raise ValueError(f"{len(prompts)} prompts, but {len(responses)} responses")
        pairs = zip(prompts, responses, strict=True)
        texts = [prompt + response if self.how.whole else response for prompt, response in pairs]
        found = np.empty(len(texts))
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for places, probabilities in within_memory(
            lambda places: self._read([texts[i] for i in places]), batched(order, BATCH)
        ):
            found[list(places)] = probabilities
        return found

    def _read(self, texts: list[str]) -> NDArray[np.float32]:
        """The label's probability for texts that are read together."""
        read = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self.how.tokens, return_tensors="pt"
        ).to(self.model.device)
        logits = self.model(**read).logits.float()
        distribution = logits.sigmoid() if self.how.alone else logits.softmax(-1)
        probabilities: NDArray[np.float32] = distribution[:, self.label].cpu().numpy()
        return probabilities
